//! The peers, each as it comes: tar and zstd, OSTree, dpkg. What a peer needs beforehand (a commit, a package, an empty
//! repository) is made before its time is taken.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fs_err as fs;
use mirabelle_tests::run;
use mirabelle_transfer::serve::{self, Naming};
use tokio_util::sync::CancellationToken;

/// Unpacks a bundle and makes sure that it is on the disk.
pub(super) fn tar(bundle: &Path, to: &Path) -> Duration {
    fs::create_dir(to).unwrap();
    let begun = Instant::now();
    run(Command::new("tar").args(["--zstd", "-xf"]).arg(bundle).arg("-C").arg(to)).succeeds();
    sync(to);
    begun.elapsed()
}

/// Writes everything on the file system of `path` to the disk.
pub(super) fn sync(path: &Path) {
    run(Command::new("sync").arg("-f").arg(path)).succeeds();
}

/// A tree as a Debian package, compressed as hard as the bundle.
pub(super) struct Dpkg {
    package: PathBuf,
}

impl Dpkg {
    pub(super) fn build(tree: &Path, version: u64, work: &Path) -> Self {
        let (staging, package) = (work.join("deb"), work.join(format!("large-{version}.deb")));
        fs::create_dir_all(staging.join("DEBIAN")).unwrap();
        fs::create_dir_all(staging.join("opt")).unwrap();
        let control = format!(
            "Package: large\nVersion: {version}\nArchitecture: all\nMaintainer: Bench <bench@example>\n\
             Description: what is measured\n"
        );
        fs::write(staging.join("DEBIAN/control"), control).unwrap();
        run(Command::new("cp").arg("-rL").arg(tree).arg(staging.join("opt/large"))).succeeds();
        let mut build = Command::new("dpkg-deb");
        build.args(["-Zzstd", "-z1", "--root-owner-group", "--build"]).arg(&staging).arg(&package);
        run(&mut build).succeeds();
        fs::remove_dir_all(staging).unwrap();
        Self { package }
    }

    /// Installs below `root` and not on this machine. dpkg syncs what it writes by itself.
    pub(super) fn install(&self, root: &Path) -> Duration {
        let database = root.join("var/lib/dpkg");
        if !database.exists() {
            for directory in ["info", "updates", "triggers"] {
                fs::create_dir_all(database.join(directory)).unwrap();
            }
            fs::write(database.join("status"), "").unwrap();
            fs::write(database.join("available"), "").unwrap();
        }
        let mut install = Command::new("dpkg");
        install.arg(format!("--root={}", root.display()));
        install.args([
            "--force-not-root",
            "--force-script-chrootless",
            "--force-bad-path",
            "--log=/dev/null",
            "-i",
        ]);
        run(install.arg(&self.package)).succeeds().took
    }
}

/// An archive repository served over loopback by the code that serves our own.
pub(super) struct OsTree {
    archive: PathBuf,
    address: String,
    stop: CancellationToken,
    server: Option<tokio::task::JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
}

impl OsTree {
    pub(super) fn start(work: &Path) -> Self {
        let archive = work.join("ostree");
        run(&mut ostree(&archive, &["init", "--mode=archive"])).succeeds();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, served) = (CancellationToken::new(), archive.clone());
        let server = runtime.spawn(serve::run(
            listener,
            move |request, _| {
                let served = served.clone();
                async move {
                    let path = serve::file_of(request.uri().path()).unwrap();
                    let immutable = path.as_str().starts_with("objects/");
                    let naming = if immutable { Naming::Immutable } else { Naming::Mutable };
                    let file = served.join(path.as_str());
                    serve::serve_file(request.method(), request.headers(), &file, naming).await
                }
            },
            stop.clone(),
        ));
        Self { archive, address, stop, server: Some(server), runtime }
    }

    pub(super) fn commit(&self, tree: &Path) {
        let mut commit = ostree(&self.archive, &["commit", "--branch=app", "--timestamp=@0"]);
        commit
            .args(["--canonical-permissions", "--no-xattrs"])
            .arg(format!("--tree=dir={}/", tree.display()));
        run(&mut commit).succeeds();
    }

    /// Pulls the newest commit into a repository of its own, which is made if it is not there, checks it out with hard
    /// links and makes sure that it is on the disk.
    pub(super) fn install(&self, client: &Path, checkout: &Path) -> Duration {
        if !client.exists() {
            run(&mut ostree(client, &["init", "--mode=bare-user"])).succeeds();
            let remote = ["remote", "add", "--no-gpg-verify", "origin", &self.address];
            run(&mut ostree(client, &remote)).succeeds();
            sync(client);
        }
        let begun = Instant::now();
        run(&mut ostree(client, &["pull", "origin", "app"])).succeeds();
        let mut check_out = ostree(client, &["checkout", "-U", "-H", "origin:app"]);
        run(check_out.arg(checkout)).succeeds();
        sync(checkout);
        begun.elapsed()
    }
}

impl Drop for OsTree {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take() {
            let _ = self.runtime.block_on(server);
        }
    }
}

fn ostree(repository: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("ostree");
    command.args(words).arg(format!("--repo={}", repository.display()));
    command
}
