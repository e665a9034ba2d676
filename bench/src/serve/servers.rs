//! The servers: ours, by the code that a node answers with, in a process of its own; and nginx as Debian has it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use fs_err as fs;
use hyper::{Response, StatusCode};
use mirabelle_content::ObjectStore;
use mirabelle_manifests::Digest;
use mirabelle_transfer::serve::{
    self, Limits, Naming, ServeStats, Server, Tls, body, file_of, problem, serve_file, serve_object,
};
use tokio_util::sync::CancellationToken;

/// Our server, in a process of its own.
#[derive(Debug, Args)]
pub(crate) struct Step {
    root: PathBuf,
    /// Bytes of small files that it keeps.
    #[arg(long)]
    cache: usize,
    /// Serves with TLS, by this certificate and key.
    #[arg(long, num_args = 2)]
    tls: Vec<PathBuf>,
}

impl Step {
    /// Serves until it is killed.
    pub(crate) fn run(&self) {
        serve::keep_in_memory(self.cache);
        // All clients of the bench have one address.
        let limits = Limits { connections_of_one: 4096, ..Limits::default() };
        let stats = Arc::new(ServeStats::default());
        let mut server = Server::default().limits(limits).stats(stats.clone());
        if let [certificate, key] = &self.tls[..] {
            server =
                server.tls(Tls::from_pem(&fs::read(certificate).unwrap(), &fs::read(key).unwrap()).unwrap());
        }
        let root: Arc<Path> = self.root.as_path().into();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            println!("{}", serde_json::json!({"address": address.to_string()}));
            std::io::stdout().flush().unwrap();
            let handler = move |request: hyper::Request<hyper::body::Incoming>, _| {
                let (root, stats) = (root.clone(), stats.clone());
                async move { answer(&root, &stats, &request).await }
            };
            server.run(listener, handler, CancellationToken::new()).await;
        });
    }
}

/// Answers as a node does (`cache-node/src/http/`).
async fn answer(
    root: &Path,
    stats: &ServeStats,
    request: &hyper::Request<hyper::body::Incoming>,
) -> Response<serve::Body> {
    let (method, headers) = (request.method(), request.headers());
    let not_here = || problem(StatusCode::NOT_FOUND, "there is no such file here");
    let Some(path) = file_of(request.uri().path()) else { return not_here() };
    match path.as_str().split_once('/') {
        Some(("objects", name)) => {
            let Some((directory, rest)) = name.split_once('/') else { return not_here() };
            let Ok(object) = format!("{directory}{rest}").parse::<Digest>() else { return not_here() };
            serve_object(method, headers, &ObjectStore::read_only(root), object).await
        }
        None if path.as_str() == "stats" => {
            let now = stats.now();
            Response::new(body(
                serde_json::json!({"cache": now.cache_bytes, "sendfile": now.sendfile_calls}).to_string(),
            ))
        }
        _ => serve_file(method, headers, &root.join(path.as_str()), Naming::Immutable).await,
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where nginx keeps its files.
    _directory: Option<tempfile::TempDir>,
}

/// A certificate for `localhost` and its key, in files.
pub(crate) struct Certificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    _directory: tempfile::TempDir,
}

impl Certificate {
    /// A new one, of P-256, made by openssl.
    pub(super) fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("c.pem"), directory.path().join("k.pem"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command.args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        mirabelle_tests::run(&mut command).succeeds();
        Self { certificate, key, _directory: directory }
    }

    /// What trusts it, and speaks HTTP/1.1 over it.
    pub(super) fn connector(&self) -> tokio_rustls::TlsConnector {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(&self.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth()).into()
    }
}

impl Process {
    /// Ours, for the tree at `root`.
    pub(super) fn ours(root: &Path, cache: u64, tls: Option<&Certificate>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("serve-step").arg(root).args(["--cache", &cache.to_string()]);
        if let Some(tls) = tls {
            command.arg("--tls").arg(&tls.certificate).arg(&tls.key);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
            .unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { child, address: said["address"].as_str().unwrap().parse().unwrap(), _directory: None }
    }

    /// nginx, for the tree at `root`.
    pub(crate) fn nginx(root: &Path, extra: &str, tls: Option<&Certificate>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ssl = tls.map_or(String::new(), |tls| {
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;",
                tls.certificate.display(),
                tls.key.display()
            )
        });
        // It cannot say which port it got: one that is free now is tried, and another if somebody was faster.
        for _ in 0..10 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let config = format!(
                "daemon off; user root; worker_processes 2; pid {pid};\n\
                 error_log stderr crit;\n\
                 events {{ worker_connections 8192; }}\n\
                 http {{\n\
                 sendfile on; tcp_nopush on; tcp_nodelay on; {extra}\n\
                 open_file_cache max=20000 inactive=10m; open_file_cache_valid 60s;\n\
                 keepalive_requests 1000000000; keepalive_timeout 10m; access_log off;\n\
                 default_type application/octet-stream; {ssl}\n\
                 server {{ listen {address} backlog=4096 {mode}; root {root};\n\
                 add_header Cache-Control \"public, max-age=31536000, immutable\"; }}\n\
                 }}\n",
                pid = directory.path().join("pid").display(),
                mode = if tls.is_some() { "ssl" } else { "" },
                root = root.display(),
            );
            let file = directory.path().join("nginx.conf");
            fs::write(&file, config).unwrap();
            let mut command = Command::new("nginx");
            command.arg("-c").arg(&file).arg("-p").arg(directory.path());
            let mut child = command.stdin(Stdio::null()).spawn().unwrap();
            loop {
                if std::net::TcpStream::connect(address).is_ok() {
                    return Self { child, address, _directory: Some(directory) };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("nginx does not start");
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// The processes that it is.
    pub(super) fn ids(&self) -> Vec<u32> {
        family(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx's workers end with their master when that is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// What a server has used, all its processes together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The most memory resident, in bytes.
    pub(crate) memory: u64,
}

impl Usage {
    /// Of a process and its children.
    pub(crate) fn of(process: u32) -> Self {
        let mut usage = Self::default();
        for id in family(process) {
            let Some(fields) = stat(id) else { continue };
            // utime and stime (proc(5)), in ticks of 10 ms.
            let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
            usage.cpu += Duration::from_millis(ticks * 10);
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
            usage.memory += peak.unwrap_or_default() * 1024;
        }
        usage
    }
}

/// The fields of `/proc/…/stat` after the name.
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// A process and its children.
fn family(process: u32) -> Vec<u32> {
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parent = |id| stat(id).and_then(|fields| fields[1].parse::<u32>().ok());
    std::iter::once(process).chain(all.filter(|id| parent(*id) == Some(process))).collect()
}
