//! A département in a directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use fs_err as fs;

use crate::process::{run, run_and_kill};
use crate::{App, Outcome, Programs, Rate, Running, Wan};

/// Opens every key of a test.
pub const PASSPHRASE: &str = "mirabelle de Lorraine";

/// Describes a world before it starts.
#[derive(Debug, Default)]
pub struct WorldBuilder {
    directory: Option<PathBuf>,
    bins: Option<u8>,
    deltas: bool,
    people: bool,
    fleet: Option<String>,
    colleges: Vec<CollegePlan>,
}

#[derive(Debug)]
struct CollegePlan {
    code: String,
    rate: Option<Rate>,
    delay: Duration,
    workstations: usize,
}

/// A repository with its keys, an origin, colleges.
pub struct World {
    directory: PathBuf,
    origin: Running,
    deltas: bool,
    colleges: Vec<College>,
    /// Removes the directory at the end, unless it is somebody's.
    _temporary: Option<tempfile::TempDir>,
}

/// A college: its link, its node, its workstations.
pub struct College {
    code: String,
    directory: PathBuf,
    wan: Wan,
    lan: Wan,
    node: Option<Running>,
    workstations: Vec<Workstation>,
    options: Vec<String>,
}

/// A workstation.
#[derive(Debug)]
pub struct Workstation {
    root: PathBuf,
}

impl WorldBuilder {
    /// In this directory, which stays; otherwise in a temporary one.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// With a catalogue split into two to the power of `bits` bins.
    #[must_use]
    pub fn bins(mut self, bits: u8) -> Self {
        self.bins = Some(bits);
        self
    }

    /// With deltas, which take their time; most tests are about other things, and publish without them.
    #[must_use]
    pub fn deltas(mut self) -> Self {
        self.deltas = true;
        self
    }

    /// With an origin that serves people too.
    #[must_use]
    pub fn people(mut self) -> Self {
        self.people = true;
        self
    }

    /// With an origin that takes the reports of machines, and keeps them in this engine: `embedded`, or a `PostgreSQL`'s address.
    #[must_use]
    pub fn fleet(mut self, engine: &str) -> Self {
        self.fleet = Some(engine.to_owned());
        self
    }

    /// With a college. What follows is about it.
    #[must_use]
    pub fn college(mut self, code: &str) -> Self {
        self.colleges.push(CollegePlan {
            code: code.to_owned(),
            rate: None,
            delay: Duration::ZERO,
            workstations: 0,
        });
        self
    }

    /// Its link's rate.
    #[must_use]
    pub fn wan(mut self, rate: Rate) -> Self {
        self.last().rate = Some(rate);
        self
    }

    /// Its link's delay, one way.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.last().delay = delay;
        self
    }

    /// Its workstations.
    #[must_use]
    pub fn workstations(mut self, count: usize) -> Self {
        self.last().workstations = count;
        self
    }

    fn last(&mut self) -> &mut CollegePlan {
        self.colleges
            .last_mut()
            .expect("a world's links and workstations belong to a college: call `college` first")
    }

    /// Makes keys and a repository, starts the origin, sets up nodes and workstations.
    pub fn start(self) -> World {
        let temporary = self.directory.is_none().then(|| tempfile::tempdir().unwrap());
        let directory = match (&self.directory, &temporary) {
            (Some(directory), _) => directory.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => unreachable!("one of the two is there"),
        };
        match self.bins {
            None => copy_tree(template(), &directory),
            Some(bits) => initialise(&directory, &["--bins", &bits.to_string()]),
        }
        let origin = serve(&directory, self.people, self.fleet.as_deref());
        let mut world =
            World { origin, deltas: self.deltas, colleges: Vec::new(), _temporary: temporary, directory };
        for plan in self.colleges {
            let college = College::set_up(plan, &world);
            world.colleges.push(college);
        }
        world
    }
}

/// A repository that was initialised and published once: making ten sealed keys takes seconds, copying them none.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<tempfile::TempDir> = OnceLock::new();
    TEMPLATE
        .get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            initialise(directory.path(), &[]);
            directory
        })
        .path()
}

fn initialise(directory: &Path, options: &[&str]) {
    fs::create_dir_all(directory).unwrap();
    run(publisher(directory).args(["init", "--yes", "--keys", "keys"]).args(options)).succeeds();
    run(publisher(directory).args(["publish", "--key", "keys/online.key"])).succeeds();
}

fn publisher(directory: &Path) -> Command {
    let mut command = Command::new(Programs::built().publisher());
    command.current_dir(directory).env("MIRABELLE_PASSPHRASE", PASSPHRASE).env_remove("MIRABELLE_LOG");
    command.env("MIRABELLE_REPOSITORY", "repository");
    command
}

fn serve(directory: &Path, people: bool, fleet: Option<&str>) -> Running {
    let mut command = publisher(directory);
    command.args(["--json", "serve", "--listen", "127.0.0.1:0"]);
    if people {
        command.args(["--people", "keys/people.key"]);
    }
    if let Some(engine) = fleet {
        command.args(["--fleet", engine]);
    }
    Running::start(&mut command)
}

/// Copies a tree of small files.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let destination = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &destination);
        } else {
            fs::copy(entry.path(), destination).unwrap();
        }
    }
}

impl World {
    /// Begins to describe a world.
    #[expect(clippy::new_ret_no_self, reason = "`World::new().college(…)` reads as a description of a world")]
    pub fn new() -> WorldBuilder {
        WorldBuilder::default()
    }

    /// The world's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file below the world's directory.
    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.join(below)
    }

    /// The root metadata that nodes and workstations were given.
    pub fn trusted_root(&self) -> PathBuf {
        self.path("repository/public/metadata/1.root.json")
    }

    /// The public half of the key that signs lists of people, as the deployment names it.
    pub fn rights_key(&self) -> &serde_json::Value {
        &self.origin.said()["rights_key"]
    }

    /// The origin's process.
    pub fn origin_process(&self) -> &Running {
        &self.origin
    }

    /// Where the origin serves.
    pub fn origin(&self) -> &str {
        self.origin.address()
    }

    /// Runs the publisher.
    pub fn publisher<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        run(publisher(&self.directory).args(arguments))
    }

    /// The publisher's command line, for a test that adds to it.
    pub fn publisher_command(&self) -> Command {
        publisher(&self.directory)
    }

    /// Builds `app`; returns the built release's directory.
    pub fn build(&self, app: &App) -> PathBuf {
        let work = tempfile::tempdir_in(&self.directory).unwrap();
        let recipe = app.write(work.path());
        let arguments = ["build", "--level", "1", "--key", "keys/packager-1.key"].map(OsStr::new);
        self.publisher(arguments.into_iter().chain([recipe.as_os_str()])).succeeds();
        self.path(&format!("built/{}-{}-any", app.name, app.version()))
    }

    /// Builds and submits `app`.
    pub fn submit(&self, app: &App) {
        let built = self.build(app);
        self.publisher(["submit".as_ref(), built.as_os_str()]).succeeds();
    }

    /// Approves what was submitted, with both approvers' keys.
    pub fn approve(&self, app: &App) {
        let keys = ["--key", "keys/approver-1.key", "--key", "keys/approver-2.key"];
        self.publisher(["approve", &app.label()].into_iter().chain(keys)).succeeds();
    }

    /// Submits and approves all of these at once.
    pub fn approve_all(&self, apps: &[App]) {
        for app in apps {
            self.submit(app);
        }
        let labels: Vec<String> = apps.iter().map(App::label).collect();
        let keys = ["--key", "keys/approver-1.key", "--key", "keys/approver-2.key"].map(ToOwned::to_owned);
        self.publisher(["approve".to_owned()].into_iter().chain(labels).chain(keys)).succeeds();
    }

    /// Deploys `app` to `colleges`.
    pub fn deploy(&self, app: &App, colleges: &str) {
        let arguments = ["deploy", &app.label(), "--colleges", colleges, "--key", "keys/operator-1.key"];
        self.publisher(arguments).succeeds();
    }

    /// Signs this deployment, written as TOML.
    pub fn deploy_policy(&self, policy: &str) {
        let path = self.path("policy.toml");
        fs::write(&path, policy).unwrap();
        let arguments = ["deploy", "--policy", path.to_str().unwrap(), "--key", "keys/operator-1.key"];
        self.publisher(arguments).succeeds();
    }

    /// Publishes.
    pub fn publish(&self) {
        let without = (!self.deltas).then_some("--without-deltas");
        self.publisher(["publish", "--key", "keys/online.key"].into_iter().chain(without)).succeeds();
    }

    /// All of it: builds, submits, approves, deploys to all colleges and publishes `app`.
    pub fn release(&self, app: &App) {
        self.submit(app);
        self.approve(app);
        self.deploy(app, "all");
        self.publish();
    }

    /// A college.
    pub fn college(&mut self, code: &str) -> &mut College {
        self.colleges.iter_mut().find(|college| college.code == code).expect("the world has this college")
    }
}

impl College {
    fn set_up(plan: CollegePlan, world: &World) -> Self {
        let directory = world.path(&format!("college-{}", plan.code));
        let wan = Wan::start(world.origin(), plan.rate, plan.delay);
        // Its far end is the node, once that runs.
        let lan = Wan::start("127.0.0.1:9", None, Duration::ZERO);
        let mut college = Self {
            code: plan.code,
            directory,
            wan,
            lan,
            node: None,
            workstations: Vec::new(),
            options: Vec::new(),
        };
        let root = world.trusted_root();
        let upstream = college.wan.address();
        let code = college.code.clone();
        let mut init = college.node_command();
        init.args([
            "init",
            "--listen",
            "127.0.0.1:0",
            // Whatever else fills the disk of the machine that tests.
            "--disk-reserve",
            "1 MiB",
            "--college",
            &code,
            "--upstream",
            &upstream,
            "--trusted-root",
        ]);
        run(init.arg(&root)).succeeds();
        for number in 0..plan.workstations {
            let workstation = Workstation { root: college.directory.join(format!("workstation-{number}")) };
            let mut enroll = workstation.command();
            enroll.args(["enroll", "--college", &code, "--node", &college.lan.address(), "--trusted-root"]);
            run(enroll.arg(&root)).succeeds();
            college.workstations.push(workstation);
        }
        college
    }

    /// Its link to the origin.
    pub fn wan(&self) -> &Wan {
        &self.wan
    }

    /// Its own network, between node and workstations.
    pub fn lan(&self) -> &Wan {
        &self.lan
    }

    /// The node's directory.
    pub fn node_root(&self) -> PathBuf {
        self.directory.join("node")
    }

    /// The node's command line, for a test that adds to it.
    pub fn node_command(&self) -> Command {
        let mut command = Command::new(Programs::built().node());
        command.env_remove("MIRABELLE_LOG").arg("--root").arg(self.node_root()).args(&self.options);
        command
    }

    /// Gives these options to every command of the node from now on.
    pub fn options<S: Into<String>>(&mut self, options: impl IntoIterator<Item = S>) {
        self.options = options.into_iter().map(Into::into).collect();
    }

    /// The one approved release of a package, as the node's metadata lists it.
    pub fn approved(&self, package: &str) -> Approved {
        let catalogue = fs::read(self.node_root().join("trust/catalogue.json")).unwrap();
        let catalogue: serde_json::Value = serde_json::from_slice(&catalogue).unwrap();
        let targets = catalogue["signed"]["targets"].as_object().unwrap();
        let (path, target) =
            targets.iter().find(|(path, _)| path.starts_with(&format!("packages/{package}/"))).unwrap();
        let digest = target["hashes"]["sha256"].as_str().unwrap().to_owned();
        let (directory, name) = path.rsplit_once('/').unwrap();
        Approved { path: format!("targets/{directory}/{digest}.{name}"), digest }
    }

    /// Runs a command of the node.
    pub fn node<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        run(self.node_command().args(arguments))
    }

    /// Lets the node mirror for `life` and kills it; says whether it was still at it.
    pub fn sync_and_kill(&self, life: Duration) -> bool {
        run_and_kill(self.node_command().arg("sync"), life)
    }

    /// Mirrors once, which must succeed, and leaves the node serving.
    pub fn sync(&mut self) -> Outcome {
        self.stop_node();
        let outcome = self.node(["--json", "sync"]).succeeds();
        self.start_node();
        outcome
    }

    /// Starts the node's service, if it does not run, with a mirroring interval that no test outlasts.
    pub fn start_node(&mut self) {
        if self.node.is_none() {
            let node = Running::start(self.node_command().args(["--json", "--sync-every", "10 h", "run"]));
            self.lan.lead_to(node.address());
            self.node = Some(node);
        }
    }

    /// The running service.
    pub fn running_node(&self) -> Option<&Running> {
        self.node.as_ref()
    }

    /// Stops the node's service in order.
    pub fn stop_node(&mut self) {
        if let Some(node) = self.node.take() {
            assert!(node.stop().success());
        }
    }

    /// Kills the node's service, as a power cut would.
    pub fn kill_node(&mut self) {
        if let Some(node) = self.node.take() {
            node.kill();
        }
    }

    /// A workstation, counted from 0.
    pub fn workstation(&self, number: usize) -> &Workstation {
        &self.workstations[number]
    }
}

/// A release that was approved.
#[derive(Clone, Debug)]
pub struct Approved {
    /// SHA-256 of its manifest.
    pub digest: String,
    /// Where a server has its manifest.
    pub path: String,
}

impl Workstation {
    /// The workstation's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Sets a line of its configuration: `disk-reserve = "0 B"`.
    pub fn configure(&self, line: &str) {
        let path = self.root.join("client.toml");
        let known = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{line}\n{known}")).unwrap();
    }

    /// The client's command line, for a test that adds to it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(Programs::built().client());
        command.env_remove("MIRABELLE_LOG").arg("--root").arg(&self.root);
        command
    }

    /// Runs a command of the client.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        run(self.command().args(arguments))
    }

    /// Runs a command and kills it after `life`; says whether it was still at it.
    pub fn run_and_kill<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        life: Duration,
    ) -> bool {
        run_and_kill(self.command().args(arguments), life)
    }

    /// Starts an installed application by its launcher, as a person would.
    pub fn launch(&self, name: &str, arguments: &[&str]) -> Outcome {
        run(Command::new(self.root.join("active/bin").join(name)).args(arguments))
    }
}
