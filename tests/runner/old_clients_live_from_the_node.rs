//! The old infrastructure's clients live from the same node: a real `apt-get` updates and installs from a repository that the node
//! pulls through, once for all of them, and goes on when the repository is down.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use mirabelle_tests::{Fault, Outcome, Rate, Wan, World, run};

const PACKAGE: &str = "quetsche";
const LARGE: usize = 4_000_000;
/// Questions whether something is still so, and their answers.
const QUESTIONS: u64 = 4_000;

#[track_caller]
fn shell(directory: &Path, script: &str) {
    let outcome = run(Command::new("sh").args(["-ec", script]).current_dir(directory));
    assert_eq!(outcome.code, Some(0), "this test needs dpkg-dev and apt-utils:\n{}", outcome.stderr);
}

/// An APT repository of one small package and a large file beside it, as its makers make one.
fn repository(directory: &Path, version: &str) {
    let package = directory.join("package");
    fs::create_dir_all(package.join("DEBIAN")).unwrap();
    fs::create_dir_all(package.join("usr/share/quetsche")).unwrap();
    let control = format!(
        "Package: {PACKAGE}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n\
         Description: a plum\n"
    );
    fs::write(package.join("DEBIAN/control"), control).unwrap();
    fs::write(package.join("usr/share/quetsche/stone"), version).unwrap();
    let noise: Vec<u8> =
        (0_u64..1 << 22).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]).collect();
    let public = directory.join("public/debian");
    fs::create_dir_all(&public).unwrap();
    fs::write(public.join("large.bin"), &noise[..LARGE]).unwrap();
    shell(
        directory,
        "mkdir -p public/debian/pool/main/q public/debian/dists/stable/main/binary-all
         mkdir -p public/debian/dists/stable/main/binary-$(dpkg --print-architecture)
         dpkg-deb --root-owner-group --build package public/debian/pool/main/q >/dev/null
         cd public/debian
         for list in dists/stable/main/binary-*; do
           apt-ftparchive packages pool > $list/Packages
           gzip -9nkf $list/Packages
           for file in $list/Packages $list/Packages.gz; do
             mkdir -p $list/by-hash/SHA256
             cp $file $list/by-hash/SHA256/$(sha256sum < $file | cut -d' ' -f1)
           done
         done
         rm -f dists/stable/Release
         apt-ftparchive -o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Codename=stable \
           -o APT::FTPArchive::Release::Components=main -o APT::FTPArchive::Release::Acquire-By-Hash=yes \
           -o APT::FTPArchive::Release::Architectures=\"$(dpkg --print-architecture) all\" release dists/stable > Release.new
         mv Release.new dists/stable/Release",
    );
}

/// A plain web server, until it is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(directory: &Path) -> Self {
        // Any port, which it then names.
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line)
            .unwrap();
        let port = line.split("port ").nth(1).unwrap().split(' ').next().unwrap();
        let address = format!("http://127.0.0.1:{port}/");
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node that pulls a repository through, over a link of its own.
struct Pulled {
    world: World,
    wan: Wan,
    _server: Server,
    directory: tempfile::TempDir,
}

impl Pulled {
    fn new(settings: &str, rate: Option<Rate>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        repository(directory.path(), "1.0");
        let server = Server::start(&directory.path().join("public"));
        let wan = Wan::start(&server.address, rate, Duration::ZERO);
        let mut world = World::new().college("57001").start();
        let college = world.college("57001");
        let path = college.node_root().join("node.toml");
        let known = fs::read_to_string(&path).unwrap();
        let declared =
            format!("[[legacy]]\nname = \"debian\"\nupstream = \"{}debian/\"\n{settings}\n", wan.address());
        fs::write(&path, format!("{known}\n{declared}")).unwrap();
        college.start_node();
        Self { world, wan, _server: server, directory }
    }

    fn node(&mut self) -> String {
        self.world.college("57001").running_node().unwrap().address().to_owned()
    }

    /// A machine of the old infrastructure: everything of its own, but the programs.
    fn client(&mut self, name: &str) -> Client {
        let directory = self.directory.path().join(name);
        for below in [
            "etc/parts",
            "etc/sources",
            "state/lists/partial",
            "cache/archives/partial",
            "root/var/lib/dpkg/updates",
            "root/var/lib/dpkg/info",
        ] {
            fs::create_dir_all(directory.join(below)).unwrap();
        }
        let source = format!("deb [trusted=yes] {}legacy/debian stable main\n", self.node());
        fs::write(directory.join("etc/sources.list"), source).unwrap();
        fs::write(directory.join("status"), "").unwrap();
        fs::write(directory.join("root/var/lib/dpkg/status"), "").unwrap();
        let at = directory.display();
        let config = format!(
            "Dir \"{at}\";\nDir::State \"state\";\nDir::State::status \"{at}/status\";\nDir::Cache \"cache\";\n\
             Dir::Etc \"etc\";\nDir::Etc::sourceparts \"sources\";\nDir::Etc::parts \"parts\";\nDir::Etc::main \"main\";\n\
             Dir::Bin::methods \"/usr/lib/apt/methods\";\nDir::Bin::dpkg \"/usr/bin/dpkg\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"0\";\n"
        );
        fs::write(directory.join("apt.conf"), config).unwrap();
        Client { directory }
    }
}

struct Client {
    directory: PathBuf,
}

impl Client {
    fn apt(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env("APT_CONFIG", self.directory.join("apt.conf"));
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        run(&mut command)
    }

    #[track_caller]
    fn updates(&self) {
        let outcome = self.apt(&["update"]).succeeds();
        assert!(!outcome.stderr.contains("W:") && !outcome.stderr.contains("E:"), "{}", outcome.stderr);
    }

    /// Installs the package below a directory of its own.
    #[track_caller]
    fn installs(&self, version: &str) {
        self.apt(&["download", PACKAGE]).succeeds();
        let root = self.directory.join("root");
        let file = self.directory.join(format!("{PACKAGE}_{version}_all.deb"));
        let mut dpkg = Command::new("dpkg");
        run(dpkg.arg(format!("--root={}", root.display())).arg("--install").arg(file)).succeeds();
        assert_eq!(fs::read_to_string(root.join("usr/share/quetsche/stone")).unwrap(), version);
    }
}

/// One request, as any HTTP client would send it; the answer's head in small letters, and its body.
fn get(server: &str, path: &str, headers: &str) -> (String, Vec<u8>) {
    let host = server.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&answer[..end]).to_lowercase(), answer[end + 4..].to_vec())
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no `{name}` in:\n{head}"))
}

#[test]
fn apt_updates_and_installs_and_the_second_machine_costs_no_byte_of_content() {
    let mut pulled = Pulled::new("", None);
    let first = pulled.client("first");
    first.updates();
    first.installs("1.0");
    let (bytes, requests) = (pulled.wan.down(), pulled.wan.requests());
    let second = pulled.client("second");
    second.updates();
    second.installs("1.0");
    assert_eq!((pulled.wan.down(), pulled.wan.requests()), (bytes, requests), "all of it was fresh");

    // Without the repository, and after the node was started anew, the same; a machine that knows nothing yet among them.
    pulled.wan.fail(Fault::Down);
    pulled.world.college("57001").stop_node();
    pulled.world.college("57001").start_node();
    let third = pulled.client("third");
    third.updates();
    third.installs("1.0");
}

#[test]
fn what_may_change_is_asked_for_again_and_only_what_changed_comes() {
    let mut pulled = Pulled::new("fresh-for = \"0 s\"", None);
    let first = pulled.client("first");
    first.updates();
    first.installs("1.0");
    let (bytes, requests) = (pulled.wan.down(), pulled.wan.requests());
    let second = pulled.client("second");
    second.updates();
    second.installs("1.0");
    let asked = pulled.wan.requests() - requests;
    assert!((1..8).contains(&asked), "{asked} questions");
    assert!(pulled.wan.down() - bytes < QUESTIONS, "{} bytes for questions", pulled.wan.down() - bytes);

    repository(pulled.directory.path(), "2.0");
    first.updates();
    first.installs("2.0");

    // It goes down: what is kept is given out, and says that it is stale.
    pulled.wan.fail(Fault::Down);
    second.updates();
    second.installs("2.0");
    let node = pulled.node();
    let (head, _) = get(&node, "/legacy/debian/dists/stable/Release", "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(field(&head, "warning"), "111 - \"revalidation failed\"");
    let (head, _) = get(&node, "/legacy/debian/never-asked-for", "");
    assert!(head.starts_with("http/1.1 502"), "{head}");
}

#[test]
fn twenty_machines_at_once_are_one_transfer() {
    let mut pulled = Pulled::new("", Some(Rate(4_000_000)));
    let node = pulled.node();
    let expected = fs::read(pulled.directory.path().join("public/debian/large.bin")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let (head, content) = get(&node, "/legacy/debian/large.bin", "");
                assert!(head.starts_with("http/1.1 200"), "{head}");
                assert!(content == expected);
            });
        }
    });
    assert_eq!(pulled.wan.requests(), 1);
    let down = pulled.wan.down();
    assert!((LARGE as u64..LARGE as u64 + 2_000).contains(&down), "{down}");

    // Parts of it come from what is kept; by tag, or by date as old clients ask.
    let (head, _) = get(&node, "/legacy/debian/large.bin", "Range: bytes=0-0\r\n");
    let (date, tag) = (field(&head, "last-modified").to_owned(), field(&head, "etag").to_owned());
    let date = httpdate(&date);
    for condition in [format!("If-Range: {date}\r\n"), format!("If-Range: {tag}\r\n")] {
        let (head, content) =
            get(&node, "/legacy/debian/large.bin", &format!("Range: bytes=1000-1999\r\n{condition}"));
        assert!(head.starts_with("http/1.1 206"), "{head}");
        assert!(content == expected[1000..2000]);
    }
    let (head, content) = get(&node, "/legacy/debian/large.bin", &format!("If-Modified-Since: {date}\r\n"));
    assert!(head.starts_with("http/1.1 304") && content.is_empty(), "{head}");
    assert_eq!(pulled.wan.requests(), 1);
}

/// A date as it was before `get` made its letters small.
fn httpdate(small: &str) -> String {
    let words: Vec<String> = small
        .split(' ')
        .map(|word| match word {
            "gmt" => "GMT".to_owned(),
            word => word[..1].to_uppercase() + &word[1..],
        })
        .collect();
    words.join(" ")
}

#[test]
fn a_transfer_that_is_cut_is_never_taken_for_a_whole_and_comes_again() {
    let mut pulled = Pulled::new("", None);
    let node = pulled.node();
    pulled.wan.fail(Fault::CutEvery(1_500_000));
    let (head, content) = get(&node, "/legacy/debian/large.bin", "");
    assert!(head.starts_with("http/1.1 200") && content.len() < LARGE, "{} bytes\n{head}", content.len());
    pulled.wan.fail(Fault::None);
    // For a moment an upstream that failed is left alone.
    let begun = std::time::Instant::now();
    loop {
        let (head, content) = get(&node, "/legacy/debian/large.bin", "");
        if head.starts_with("http/1.1 200") {
            assert_eq!(content.len(), LARGE);
            break;
        }
        assert!(head.starts_with("http/1.1 502") && begun.elapsed() < Duration::from_mins(1), "{head}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_is_no_file_of_the_repository_is_refused_and_what_is_not_there_is_said_once() {
    let mut pulled = Pulled::new("", None);
    let node = pulled.node();
    for path in [
        "/legacy/debian/../../node.toml",
        "/legacy/debian/%2e%2e/secret",
        "/legacy/debian/a%2f..%2fb",
        "/legacy/debian/a%00b",
        "/legacy/debian/large.bin?x=y",
        "/legacy/debian/dists/",
    ] {
        let (head, _) = get(&node, path, "");
        assert!(head.starts_with("http/1.1 400"), "{path}:\n{head}");
    }
    for path in ["/legacy/other/large.bin", "/legacy/", "/legacy/debian"] {
        let (head, _) = get(&node, path, "");
        assert!(head.starts_with("http/1.1 404"), "{path}:\n{head}");
    }
    assert_eq!(pulled.wan.requests(), 0);
    for _ in 0..3 {
        let (head, _) = get(&node, "/legacy/debian/none", "");
        assert!(head.starts_with("http/1.1 404"), "{head}");
    }
    assert_eq!(pulled.wan.requests(), 1);
}

#[test]
fn the_quota_holds_whatever_is_asked_for() {
    let mut pulled = Pulled::new("", None);
    let path = pulled.world.college("57001").node_root().join("node.toml");
    let known = fs::read_to_string(&path).unwrap();
    pulled.world.college("57001").stop_node();
    fs::write(&path, format!("legacy-quota = \"10 MB\"\n{known}")).unwrap();
    let public = pulled.directory.path().join("public/debian");
    for number in 0..6 {
        fs::copy(public.join("large.bin"), public.join(format!("large-{number}.deb"))).unwrap();
    }
    fs::File::create(public.join("too-large.deb")).unwrap().set_len(6_000_000).unwrap();
    pulled.world.college("57001").start_node();
    let node = pulled.node();
    for number in 0..6 {
        let (head, content) = get(&node, &format!("/legacy/debian/large-{number}.deb"), "");
        assert!(head.starts_with("http/1.1 200") && content.len() == LARGE, "{head}");
    }
    let (head, _) = get(&node, "/legacy/debian/too-large.deb", "");
    assert!(head.starts_with("http/1.1 502"), "{head}");
    // What was given out while it came is kept a moment later.
    let kept = pulled.world.college("57001").node_root().join("legacy");
    let taken = || -> u64 {
        let said = run(Command::new("du").arg("-sb").arg(&kept)).stdout;
        said.split('\t').next().unwrap().parse().unwrap()
    };
    let begun = std::time::Instant::now();
    while !(4_000_000..10_000_000).contains(&taken()) {
        assert!(begun.elapsed() < Duration::from_mins(1), "{}", taken());
    }
    let requests = pulled.wan.requests();
    get(&node, "/legacy/debian/large-5.deb", "");
    assert_eq!(pulled.wan.requests(), requests, "the last one is still there");
}
