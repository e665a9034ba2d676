//! The agent is updated by the transaction that it makes for everything else, and is its former self again when the new one
//! does not come up.

use std::path::PathBuf;

use fs_err as fs;
use mirabelle_tests::{App, Workstation, World};

use crate::agents::{Agent, Power, kept, sequence};

/// The service manager: starts the machine's own program again whenever it ends, until `done`.
fn supervise(workstation: &Workstation, what: &str, mut done: impl FnMut(&mut Agent) -> bool) {
    let program: PathBuf = workstation.command().get_program().into();
    for _ in 0..10 {
        let mut agent = Agent::start_program(&program, workstation.root(), None);
        let mut ended = false;
        let reached = crate::agents::eventually(std::time::Duration::from_mins(2), || {
            ended = !agent.is_alive();
            ended || done(&mut agent)
        });
        assert!(reached, "{what} never came:\n{}", agent.log());
        if !ended {
            return;
        }
        if done(&mut agent) {
            return;
        }
    }
    panic!("{what} never came, whatever was started again");
}

/// A release of the client whose program is `content`.
fn client(sequence: u64, content: Vec<u8>) -> App {
    App::new("mirabelle", sequence).file("bin/mirabelle", content)
}

#[test]
fn a_new_agent_takes_over_and_one_that_does_not_come_up_is_taken_back() {
    let mut world = World::new().college("57001").workstations(1).start();
    let program = fs::read(world.college("57001").workstation(0).command().get_program()).unwrap();
    // Another program, if only by what stands at its end.
    let mut own = program.clone();
    own.extend_from_slice(b"another");
    world.release(&client(1, own));
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    Power::connect(workstation, 0);
    supervise(workstation, "the new agent", |_| kept(workstation, "self.json")["came_up"] == true);
    assert_eq!(sequence(workstation, "mirabelle"), Some(1));

    // One that cannot even start.
    world.release(&client(2, b"#!/bin/sh\nexit 3\n".to_vec()));
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    let mut saw_the_new_one = false;
    supervise(workstation, "the former agent", |_| {
        let now = sequence(workstation, "mirabelle");
        saw_the_new_one |= now == Some(2);
        saw_the_new_one && now == Some(1) && kept(workstation, "self.json")["came_up"] == true
    });
    let why = workstation.run(["--json", "why", "mirabelle"]).succeeds().json();
    assert_eq!(why["action"], "keep");
    assert!(why["words"].to_string().contains("the agent did not come up"), "{why}");
    workstation.run(["verify"]).succeeds();
}
