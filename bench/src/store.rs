//! `store`: what pages of the store cost with a large catalogue: the first page, a search, a page's bytes; and the pictures of a
//! node, asked for by many browsers at once.
//!
//! A real repository, node and agent. Times are those of whole answers over the loopback, read by a program and not by a browser.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Args;
use mirabelle_terminal::Table;
use mirabelle_tests::{App, Provider, World, many, sample_policy, samples};

/// What pages of the store cost.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Packages in the catalogue.
    #[arg(long, default_value_t = 1000)]
    packages: usize,
    /// Browsers that ask the node for pictures at once.
    #[arg(long, default_value_t = 60)]
    browsers: usize,
    /// Times that each page is asked for.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
}

/// What people type: right, with mistakes, half a word, nothing that there is.
const QUESTIONS: [&str; 8] =
    ["geogebra", "geogbra", "paquet+512", "pqauet", "g%C3%A9om%C3%A9trie", "dessin+photo", "zzzzzzzz", "p"];

pub(crate) fn run(arguments: &Arguments) {
    let provider = Provider::start();
    let mut world = World::new().people().college("57001").workstations(1).start();
    let apps: Vec<App> = samples().into_iter().chain(many(arguments.packages.saturating_sub(16))).collect();
    eprintln!("publishing {} packages", apps.len());
    world.approve_all(&apps);
    world.deploy_policy(&sample_policy(&apps, &provider.policy(world.rights_key())));
    world.publish();
    let college = world.college("57001");
    college.sync();
    let workstation = college.workstation(0);
    workstation.run(["refresh"]).succeeds();
    let path = workstation.root().join("client.toml");
    let text = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, format!("{text}\n[agent]\nstore-port = 0\n")).unwrap();
    let mut command = workstation.command();
    let mut agent = command.arg("agent").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !workstation.root().join("agent.sock").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut command = workstation.command();
    let mut desktop = command.args(["store", "--print"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(desktop.stdout.take().unwrap()), &mut url)
        .unwrap();
    let (address, ticket) = url.trim().trim_start_matches("http://").split_once('/').unwrap();
    let entered = get(address, &format!("/{ticket}"), "").1;
    let cookie = entered.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    let cookie = format!("Cookie: {cookie}\r\n");

    let cold = get(address, "/", &cookie).0;
    let mut page = Vec::new();
    let mut search = Vec::new();
    let mut bytes = 0;
    for round in 0..arguments.rounds {
        let (took, text) = get(address, "/", &cookie);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        bytes = text.len();
        page.push(took);
        let question = QUESTIONS[round % QUESTIONS.len()];
        let (took, text) =
            get(address, &format!("/search?q={question}"), &format!("{cookie}X-Fragment: 1\r\n"));
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        search.push(took);
        // The pace of a person: the store has one.
        std::thread::sleep(Duration::from_millis(60));
    }
    let assets: usize = ["/assets/store.css", "/assets/store.js", "/assets/store.svg"]
        .iter()
        .map(|path| get(address, path, &cookie).1.len())
        .sum();
    let node = college
        .running_node()
        .unwrap()
        .address()
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let media: Vec<String> = fs_err::read_dir(college.node_root().join("served/media"))
        .unwrap()
        .map(|entry| format!("/media/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    let asking: Vec<_> = (0..arguments.browsers)
        .map(|_| {
            let (node, media) = (node.clone(), media.clone());
            std::thread::spawn(move || {
                media.iter().map(|path| get(&node, path, "").0).collect::<Vec<Duration>>()
            })
        })
        .collect();
    let mut waits: Vec<Duration> = asking.into_iter().flat_map(|asked| asked.join().unwrap()).collect();
    waits.sort();
    let (_, _) = (desktop.kill(), desktop.wait());
    let (_, _) = (agent.kill(), agent.wait());

    let ms = |took: Duration| took.as_secs_f64() * 1000.0;
    let (page_ms, search_ms) = (ms(median(&mut page)), ms(median(&mut search)));
    let worst_search = search.last().copied().map_or(0.0, ms);
    let p99 = ms(waits[waits.len() * 99 / 100]);
    let mut table = Table::new(["what", "measured"]);
    table.row(["first page, as the agent has just started".to_owned(), format!("{:.1} ms", ms(cold))]);
    table.row(["first page, median".to_owned(), format!("{page_ms:.1} ms")]);
    table
        .row(["a search, median and slowest".to_owned(), format!("{search_ms:.1} ms, {worst_search:.1} ms")]);
    table.row(["bytes of the first page, with style and script".to_owned(), format!("{}", bytes + assets)]);
    table.row([format!("a picture, {} browsers at once, p99", arguments.browsers), format!("{p99:.1} ms")]);
    println!("{}", table.render());
    println!(
        "result: packages={} first_page_ms={page_ms:.1} cold_page_ms={:.1} search_ms={search_ms:.1} search_worst_ms={worst_search:.1} \
         page_bytes={} media_p99_ms={p99:.1}",
        apps.len(),
        ms(cold),
        bytes + assets
    );
}

fn median(all: &mut [Duration]) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// One request; how long it took, and the whole answer.
fn get(address: &str, path: &str, headers: &str) -> (Duration, String) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    (begun.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}
