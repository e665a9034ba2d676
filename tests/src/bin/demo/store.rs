//! `./demo --store`: a college with a store, and a provider to sign in with; left running until interrupted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use mirabelle_tests::{PASSPHRASE, Provider, World, sample_policy, samples};

/// Runs it.
pub(crate) fn run(mut world: World) {
    let provider = Provider::start();
    let apps = samples();
    eprintln!("publishing {} sample applications", apps.len());
    world.approve_all(&apps);
    world.deploy_policy(&sample_policy(&apps, &provider.policy(world.rights_key())));
    world.publish();
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    workstation.configure("room = \"B12\"");
    let path = workstation.root().join("client.toml");
    let text = fs_err::read_to_string(&path).expect("the workstation was enrolled");
    let agent = "[agent]\nrefresh-every = \"5 s\"\nstore-port = 0\npower-off = [\"true\"]\n";
    fs_err::write(&path, format!("{text}\n{agent}")).expect("the workstation can be configured");
    let mut command = workstation.command();
    let mut agent =
        command.arg("agent").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the agent starts");
    let socket = workstation.root().join("agent.sock");
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut desktop = open(workstation.command());
    let mut lines = BufReader::new(desktop.stdout.take().expect("it prints")).lines();
    let url = lines.next().and_then(Result::ok).unwrap_or_default();
    println!("\nthe store       {url}");
    println!("                (for a browser of this user, once; `mirabelle store` opens others)");
    println!("sign in as      claire (teaches here), denis (elsewhere), emma (a pupil); any password");
    println!("the node        {}", college.running_node().map_or("", |node| node.address()));
    println!("everything is in {}; passphrase of its keys: {PASSPHRASE}", world.directory().display());
    println!("\nrunning until interrupted (Ctrl-C)");
    let _ = desktop.wait();
    let _ = (agent.kill(), agent.wait());
}

fn open(mut command: Command) -> std::process::Child {
    command.args(["store", "--print"]).stdout(Stdio::piped()).spawn().expect("the store opens")
}
