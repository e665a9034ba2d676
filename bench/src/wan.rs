//! `wan`: a room asks for the same large object at once, which its node does not hold, over a slow link.
//!
//! ```text
//! origin ─▶ link of 20 Mbit/s ─▶ node  ─▶ 64 workstations
//! origin ─▶ another like it   ─▶ nginx ─▶ 64 workstations     proxy_cache with its lock, and a time-out that lets it work
//! ```
//!
//! The object is one of an approved release that is not deployed there: nothing of it is at the node. Bytes are counted on the link;
//! ideal is the object's bytes at the link's rate. Both run one after the other in one run.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use fs_err as fs;
use mirabelle_manifests::Digest;
use mirabelle_terminal::{Table, bytes};
use mirabelle_tests::{App, Wan, World, get, mbit};

use crate::serve::Process;
use crate::wan_bytes::machine;

const COLLEGE: &str = "57001";

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Workstations.
    #[arg(long, default_value_t = 64)]
    workstations: usize,
    /// Megabytes of the object.
    #[arg(long, default_value_t = 100)]
    megabytes: usize,
    /// Megabits a second of the link.
    #[arg(long, default_value_t = 20)]
    megabits: u64,
    /// Writes the page.
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What one server made of it.
struct Measured {
    name: &'static str,
    /// Bytes that crossed the link.
    crossed: u64,
    /// Until the first and the last byte, of each workstation that got all of it.
    first: Vec<Duration>,
    last: Vec<Duration>,
    failed: usize,
    memory: u64,
}

pub(crate) fn run(arguments: &Arguments) {
    let size = arguments.megabytes * 1_000_000;
    let mut world = World::new().college(COLLEGE).wan(mbit(arguments.megabits)).start();
    world.release(&App::new("base", 1));
    let app = App::new("large", 1).noise("data", size, 7);
    let object = Digest::of(&app.content("data"));
    world.submit(&app);
    world.approve(&app);
    world.publish();
    let bundles = world.path("repository/public/bundles");
    let bundle = fs::read_dir(bundles).unwrap().map(|entry| entry.unwrap());
    let bundle = bundle.max_by_key(|bundle| bundle.metadata().unwrap().len()).unwrap();
    let origin = world.origin().to_owned();

    let college = world.college(COLLEGE);
    college.sync();
    let node = college.running_node().unwrap().address().to_owned();
    let release = college.approved("large");
    assert_eq!(get(&node, &release.path, "").status(), 200);
    let before = college.wan().down();
    let mut ours = ask(arguments.workstations, &node, &format!("objects/{}", object.fanned_out()), size);
    ours.crossed = college.wan().down() - before;
    ours.memory = college.running_node().unwrap().peak_rss();

    let link = Wan::start(&origin, Some(mbit(arguments.megabits)), Duration::ZERO);
    let cache = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let extra = format!(
        "proxy_cache_path {cache} keys_zone=k:10m max_size=10g; proxy_temp_path {cache}/temp;\n\
         server {{ listen {address}; location / {{ proxy_pass {link}; proxy_cache k; proxy_cache_lock on;\n\
         proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; proxy_cache_valid 200 1h; proxy_read_timeout 1h; }} }}",
        cache = cache.path().display(),
        link = link.address().trim_end_matches('/'),
    );
    let nginx = Process::nginx(cache.path(), &extra, None);
    let path = format!("bundles/{}", bundle.file_name().to_string_lossy());
    let length = usize::try_from(bundle.metadata().unwrap().len()).unwrap();
    let mut theirs = ask(arguments.workstations, &format!("http://{address}/"), &path, length);
    (theirs.name, theirs.crossed) = ("nginx, proxy_cache_lock", link.down());
    theirs.memory = nginx.usage().memory;

    let ideal = size as f64 * 8.0 / (arguments.megabits as f64 * 1e6);
    let text = report(&[&ours, &theirs], size, ideal, arguments);
    println!("{text}");
    let last = ours.last.iter().max().map_or(f64::INFINITY, Duration::as_secs_f64);
    println!(
        "result: upstream_ratio={:.4} last_byte_vs_ideal={:.4} failed={} memory_mb={:.0} nginx_last_byte_vs_ideal={:.4}",
        ours.crossed as f64 / size as f64,
        last / ideal,
        ours.failed,
        ours.memory as f64 / 1e6,
        theirs.last.iter().max().map_or(f64::INFINITY, Duration::as_secs_f64) / ideal,
    );
    if let Some(page) = &arguments.page {
        let page_text = format!("# A room asks at once\n\n{}\n\n```text\n{text}```\n", machine());
        fs::write(page, page_text).unwrap();
    }
}

fn report(measured: &[&Measured], size: usize, ideal: f64, arguments: &Arguments) -> String {
    let mut table = Table::new([
        "server",
        "crossed",
        "of the object",
        "first byte",
        "last byte",
        "of ideal",
        "failed",
        "memory",
    ])
    .right([1, 2, 3, 4, 5, 6, 7]);
    for measured in measured {
        let most = |times: &[Duration]| times.iter().max().map_or(f64::NAN, Duration::as_secs_f64);
        table.row([
            measured.name.to_owned(),
            bytes(measured.crossed),
            format!("{:.3}", measured.crossed as f64 / size as f64),
            format!("{:.2} s", most(&measured.first)),
            format!("{:.2} s", most(&measured.last)),
            format!("{:.3}", most(&measured.last) / ideal),
            measured.failed.to_string(),
            bytes(measured.memory),
        ]);
    }
    format!(
        "{} workstations ask at once for {} over {} Mbit/s; ideal is {ideal:.1} s; times are of the slowest\n{}",
        arguments.workstations,
        bytes(size as u64),
        arguments.megabits,
        table.render()
    )
}

/// Everybody asks at once, for `size` bytes.
fn ask(workstations: usize, server: &str, path: &str, size: usize) -> Measured {
    let host = server.trim_start_matches("http://").trim_end_matches('/');
    let begun = Instant::now();
    let answers: Vec<Option<(Duration, Duration)>> = std::thread::scope(|threads| {
        let asking: Vec<_> = (0..workstations)
            .map(|_| threads.spawn(|| one(host, path, size, begun).ok().flatten()))
            .collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let got: Vec<_> = answers.iter().flatten().collect();
    Measured {
        name: "ours",
        crossed: 0,
        first: got.iter().map(|(first, _)| *first).collect(),
        last: got.iter().map(|(_, last)| *last).collect(),
        failed: workstations - got.len(),
        memory: 0,
    }
}

fn one(host: &str, path: &str, size: usize, begun: Instant) -> std::io::Result<Option<(Duration, Duration)>> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_mins(2)))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut piece = vec![0; 64 << 10];
    let (mut head, mut body, mut first) = (Vec::new(), 0, None);
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            break;
        }
        if first.is_some() {
            body += read;
            continue;
        }
        head.extend_from_slice(&piece[..read]);
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            body = head.len() - end - 4;
            first = (body > 0 || head.starts_with(b"HTTP/1.1 200")).then(|| begun.elapsed());
            if !head.starts_with(b"HTTP/1.1 200") {
                return Ok(None);
            }
        }
    }
    Ok(first.filter(|_| body == size).map(|first| (first, begun.elapsed())))
}
