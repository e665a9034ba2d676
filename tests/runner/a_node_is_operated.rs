//! Whoever looks after a node asks it, and is told what needs her: it stops in order when asked, is never mistaken for another
//! process, and says what is wrong with it and what to do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use fs_err as fs;
use mirabelle_tests::{App, Fault, Running, World};

const LARGE: usize = 24 << 20;

fn object_path(world: &mut World) -> String {
    let college = world.college("57001");
    let objects = college.node_root().join("objects");
    let folders = fs::read_dir(objects).unwrap().map(|folder| folder.unwrap().path());
    let mut files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|file| file.unwrap()));
    let large = files.find(|file| file.metadata().unwrap().len() >= LARGE as u64).unwrap().path();
    let folder = large.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let name = large.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    format!("objects/{folder}/{name}")
}

#[test]
fn a_node_that_is_drained_finishes_what_it_sends() {
    let mut world = World::new().college("57001").start();
    world.release(&App::new("hello", 1).noise("data", LARGE, 1));
    world.college("57001").sync();
    let path = object_path(&mut world);
    let college = world.college("57001");
    let host = college.running_node().unwrap().address().to_owned();
    let host = host.trim_start_matches("http://").trim_end_matches('/');

    // Somebody who has begun, and reads on only when the node was asked to stop.
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut got = vec![0; 1024];
    stream.read_exact(&mut got).unwrap();
    assert!(got.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&got));
    let mut drain = college.node_command().args(["--json", "drain"]).stdout(Stdio::piped()).spawn().unwrap();
    // It accepts nobody any more: it was asked.
    while TcpStream::connect(host).is_ok() {
        std::thread::yield_now();
    }
    assert!(drain.try_wait().unwrap().is_none(), "it waits for what is being sent");
    stream.read_to_end(&mut got).unwrap();
    assert!(got.len() > LARGE, "{} bytes came", got.len());

    let mut said = String::new();
    drain.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(drain.wait().unwrap().success());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["ran"], &said["socket_stays"]), (&true.into(), &false.into()), "{said}");
    assert!(!college.node_root().join("running.json").exists());
    let again = college.node(["--json", "drain"]).succeeds().json();
    assert_eq!(again["ran"], false);
}

/// Starts the node on a socket that stays when it ends, as systemd's does.
fn start_on(listener: &TcpListener, command: &mut Command) -> Running {
    rustix::io::fcntl_setfd(listener, rustix::io::FdFlags::empty()).unwrap();
    let handing = format!("exec 3<&{}; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"", listener.as_raw_fd());
    let mut shell = Command::new("bash");
    shell.args(["-c", &handing, "bash"]).arg(command.get_program()).args(command.get_args());
    Running::start(&mut shell)
}

#[test]
fn an_upgrade_drops_no_download_and_refuses_nobody() {
    let mut world = World::new().college("57001").start();
    world.release(&App::new("hello", 1).noise("data", LARGE, 1));
    world.college("57001").sync();
    let path = object_path(&mut world);
    let college = world.college("57001");
    college.stop_node();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let run = || start_on(&listener, college.node_command().args(["--json", "--sync-every", "10 h", "run"]));

    let old = run();
    assert_eq!(old.address(), format!("http://{host}/"));
    let mut stream = TcpStream::connect(&host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut got = vec![0; 1024];
    stream.read_exact(&mut got).unwrap();
    let mut drain = college.node_command().args(["--json", "drain"]).stdout(Stdio::piped()).spawn().unwrap();
    stream.read_to_end(&mut got).unwrap();
    assert!(got.len() > LARGE, "{} bytes came", got.len());
    let mut said = String::new();
    drain.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(drain.wait().unwrap().success());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["ran"], &said["socket_stays"]), (&true.into(), &true.into()), "{said}");

    // Nobody is there now, and whoever comes waits for the new program.
    let mut waiting = TcpStream::connect(&host).unwrap();
    write!(waiting, "GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let new = run();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(new.stop().success());
}

#[test]
fn no_other_process_is_ever_taken_for_the_node() {
    let mut world = World::new().college("57001").start();
    let college = world.college("57001");
    college.sync();
    let file = college.node_root().join("running.json");
    let mut running: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();

    // While the node runs, its file says another process's number.
    running["pid"] = bystander.id().into();
    fs::write(&file, running.to_string()).unwrap();
    assert_eq!(college.node(["--json", "drain"]).succeeds().json()["ran"], false);
    // And what a node leaves that was killed, whose number went to another process.
    college.kill_node();
    fs::write(&file, running.to_string()).unwrap();
    assert_eq!(college.node(["--json", "drain"]).succeeds().json()["ran"], false);
    assert!(college.node(["--json", "status"]).succeeds().json()["running"].is_null());
    assert!(bystander.try_wait().unwrap().is_none(), "nobody signalled it");

    college.start_node();
    let drained = college.node(["drain", "--timeout", "1 min"]).succeeds().stdout;
    assert!(drained.contains("has ended"), "{drained}");
    assert!(bystander.try_wait().unwrap().is_none());
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn the_doctor_says_what_needs_a_person_and_what_takes_the_space() {
    let mut world = World::new().college("57001").start();
    world.release(&App::new("hello", 1).noise("data", 1_000_000, 1));
    let college = world.college("57001");
    college.sync();

    let well = college.node(["doctor"]).succeeds().stdout;
    for words in ["nothing needs a person", "objects", "releases that are held", "process ", "just now"] {
        assert!(well.contains(words), "`{words}` in:\n{well}");
    }
    let well = college.node(["--json", "doctor"]).succeeds().json();
    assert_eq!(well["findings"], serde_json::json!([]));
    assert_eq!(well["folders"][0]["name"], "objects");
    assert_eq!(well["room"]["stage"], "roomy");

    // The key can be read by others, the node does not run, its upstream is gone, and something new must come.
    let key = college.node_root().join("identity.key");
    fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    college.stop_node();
    college.wan().fail(Fault::Down);
    college.node(["sync"]).fails(3, "");
    let ill = college.node(["doctor"]).fails(1, "2 things need a person").stdout;
    for words in ["the node does not run", "identity.key may be read or changed by others", "failed once"] {
        assert!(ill.contains(words), "`{words}` in:\n{ill}");
    }
    let ill = college.node(["--json", "doctor"]).fails(1, "").json();
    let about = ill["findings"].as_array().unwrap().iter().map(|finding| finding["about"].as_str().unwrap());
    assert_eq!(about.collect::<Vec<_>>(), ["service", "access", "upstream"]);
    assert_eq!(ill["upstreams"][0]["failures"], 1);
}
