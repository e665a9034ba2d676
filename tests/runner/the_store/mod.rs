//! Promise: whoever sits at a workstation sees what is approved for it, gets what she may have and nothing else, and knows why.
//!
//! A real agent serves the store to a real browser; people sign in with a real OpenID Connect provider.

mod attacks;
mod journey;
mod media;
mod people;
mod rooms;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use fs_err as fs;
use mirabelle_tests::{App, Browser, College, Provider, World, as_somebody, post, sample_policy};
use serde_json::Value;

use crate::agents::{Agent, configure};

/// A college with a store on each of its workstations.
pub(crate) struct Store {
    /// Ends first: the desktop, then the agent.
    desktop: Option<Desktop>,
    pub(crate) agent: Agent,
    pub(crate) provider: Provider,
    pub(crate) world: World,
}

impl Store {
    /// College 57001 with `apps`, and a workstation in room B12 whose agent is at work.
    pub(crate) fn with(apps: &[App]) -> Self {
        let provider = Provider::start();
        let mut world =
            World::new().people().college("57001").workstations(1).college("57002").workstations(1).start();
        world.approve_all(apps);
        world.deploy_policy(&sample_policy(apps, &provider.policy(world.rights_key())));
        world.publish();
        let college = world.college("57001");
        college.sync();
        let agent = start_agent(college);
        Self { desktop: None, agent, provider, world }
    }

    /// A desktop from which the store was opened; where the store is.
    pub(crate) fn open(&mut self) -> String {
        self.desktop = None;
        let college = self.world.college("57001");
        let desktop =
            Desktop::open(college.workstation(0).command(), &college.workstation(0).root().join("launched"));
        let url = desktop.url.clone();
        self.desktop = Some(desktop);
        url
    }

    /// The desktop session ends.
    pub(crate) fn close(&mut self) {
        self.desktop = None;
    }

    /// A browser with the store open.
    pub(crate) fn browser(&mut self) -> Browser {
        let url = self.open();
        let mut browser = Browser::start();
        assert_eq!(browser.goto(&url), 200);
        browser
    }

    /// The address of a page.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}{path}", self.desktop.as_ref().unwrap().base())
    }
}

/// The agent of a college's first workstation, with a store on a free port.
pub(crate) fn start_agent(college: &College) -> Agent {
    let workstation = college.workstation(0);
    workstation.configure("room = \"B12\"\nmachine-note = 0");
    let path = workstation.root().join("client.toml");
    let text = fs::read_to_string(&path).unwrap().replace("machine-note = 0\n", "");
    fs::write(&path, text).unwrap();
    configure(workstation, "[agent]\nrefresh-every = \"1 s\"\nstore-port = 0\n");
    workstation.run(["refresh"]).succeeds();
    let agent = Agent::start(workstation, None);
    agent.until("its socket", || workstation.root().join("agent.sock").exists());
    agent
}

/// `mirabelle store`, as a desktop runs it.
pub(crate) struct Desktop {
    child: Child,
    _input: Option<ChildStdin>,
    pub(crate) url: String,
}

impl Desktop {
    pub(crate) fn open(mut command: Command, launched: &Path) -> Self {
        let mut command = as_somebody(command.args(["--json", "store", "--print"]));
        command.env("MIRABELLE_TEST_LAUNCHED", launched);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            for line in output.lines().map_while(Result::ok) {
                text += &line;
                if let Ok(json) = serde_json::from_str::<Value>(&text) {
                    let _ = said.send(json);
                    text.clear();
                }
            }
        });
        let said = heard.recv_timeout(Duration::from_mins(1)).unwrap();
        let url = said["url"].as_str().unwrap().to_owned();
        Self { _input: child.stdin.take(), child, url }
    }

    /// Where the store is, without a slash at its end.
    pub(crate) fn base(&self) -> String {
        self.url.split("/open/").next().unwrap().to_owned()
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts JSON to a server; the status of its answer.
pub(crate) fn post_json(server: &str, path: &str, json: &str) -> u16 {
    let path = path.trim_start_matches('/');
    post(server, path, "Content-Type: application/json\r\n", json.as_bytes()).status()
}
