//! A `PostgreSQL` of the test's own, on the loopback: Debian's, started and stopped as often as a test wants.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use crate::browser::as_somebody;
use crate::process::run;

const LONGEST: Duration = Duration::from_secs(30);

/// The server, with an empty database `fleet`.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    data: PathBuf,
    port: u16,
    child: Option<Child>,
    _directory: tempfile::TempDir,
}

impl Postgres {
    /// Makes one, and starts it.
    ///
    /// # Panics
    /// When it is not installed, or does not start.
    pub fn start() -> Self {
        let versions =
            fs::read_dir("/usr/lib/postgresql").unwrap_or_else(|error| panic!("{error}: install postgresql"));
        let programs = versions
            .map(|version| version.unwrap().path().join("bin"))
            .max()
            .expect("a version is installed");
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.args([
            "--auth=trust",
            "--username=mirabelle",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--pgdata",
        ]);
        run(&mut as_somebody(initdb.arg(&data))).succeeds();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap().port();
        let mut postgres = Self { programs, data, port, child: None, _directory: directory };
        postgres.run();
        let mut createdb = Command::new(postgres.programs.join("createdb"));
        createdb.args(["--host=127.0.0.1", "--username=mirabelle", &format!("--port={port}"), "fleet"]);
        run(&mut createdb).succeeds();
        postgres
    }

    /// Where the database is.
    pub fn url(&self) -> String {
        format!("postgres://mirabelle@127.0.0.1:{}/fleet", self.port)
    }

    /// Starts it again.
    pub fn run(&mut self) {
        let mut server = Command::new(self.programs.join("postgres"));
        server.arg("-D").arg(&self.data).args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        server.arg("-k").arg(&self.data);
        let mut server = as_somebody(&server);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(server.spawn().unwrap());
        let begun = Instant::now();
        while !self.is_up() {
            assert!(begun.elapsed() < LONGEST, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_up(&self) -> bool {
        let mut ready = Command::new(self.programs.join("pg_isready"));
        ready.args(["--quiet", "--host=127.0.0.1", &format!("--port={}", self.port)]);
        ready.status().is_ok_and(|status| status.success())
    }

    /// Ends it at once, as if its machine had gone.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Immediate shutdown: no goodbye to anybody, and the log is replayed at the next start.
        let _ = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
        let _: io::Result<_> = child.wait();
        let _ = fs::remove_file(self.pid_file());
    }

    fn pid_file(&self) -> PathBuf {
        Path::new(&self.data).join("postmaster.pid")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
