//! tough, the Rust client of AWS, reads a repository of ours: a second witness that what we publish is TUF.
//!
//! ```text
//! tough-reader ROOT.json METADATA-URL TARGETS-URL TARGET…
//! root 1
//! listed 3
//! read trust/packagers.json 412
//! ```
//!
//! It verifies the whole repository, every delegated role included, then reads each target, whose length and digest
//! tough checks.
//!
//! One deviation of tough's is put right on the way (0.24, `lib.rs`): for `dir/name` it asks for `HASH.dir/name`, or
//! `HASH.dir%2Fname`, where TUF 1.0.34, 6.2 keeps `dir/HASH.name`. [`HashBeforeTheName`] asks for the latter.

use std::error::Error;
use std::path::Path;

use async_trait::async_trait;
use tough::{
    HttpTransport, IntoVec, RepositoryLoader, TargetName, Transport, TransportError, TransportErrorKind,
    TransportStream,
};
use url::Url;

/// tough's own transport, with the digest of a target before its last segment.
#[derive(Clone, Debug)]
struct HashBeforeTheName {
    targets: Url,
    http: HttpTransport,
}

#[async_trait]
impl Transport for HashBeforeTheName {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let Some(path) = url.as_str().strip_prefix(self.targets.as_str()) else {
            return self.http.fetch(url).await;
        };
        let not_a_url = |_| TransportError::new(TransportErrorKind::Other, url.as_str());
        let path = path.replace("%2F", "/");
        let moved = hash_before_the_name(&path).unwrap_or(path);
        self.http.fetch(self.targets.join(&moved).map_err(not_a_url)?).await
    }
}

/// `dir/HASH.name` for `HASH.dir/name`.
fn hash_before_the_name(path: &str) -> Option<String> {
    let (hash, rest) = path.split_once('.')?;
    let (directory, name) = rest.rsplit_once('/')?;
    Some(format!("{directory}/{hash}.{name}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, metadata, targets, names @ ..] = arguments.as_slice() else {
        return Err("usage: tough-reader ROOT.json METADATA-URL TARGETS-URL TARGET…".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(read(Path::new(root), metadata.parse()?, targets.parse()?, names))
}

async fn read(root: &Path, metadata: Url, targets: Url, names: &[String]) -> Result<(), Box<dyn Error>> {
    let root = fs_err::read(root)?;
    let transport = HashBeforeTheName { targets: targets.clone(), http: HttpTransport::default() };
    let repository = RepositoryLoader::new(&root, metadata, targets).transport(transport).load().await?;
    for role in ["catalogue", "deployment", "brake"] {
        repository.delegated_role(role).ok_or_else(|| format!("`{role}` is not there"))?;
    }
    println!("root {}", repository.root().signed.version);
    println!("listed {}", repository.all_targets().count());
    for name in names {
        let target = repository.read_target(&TargetName::new(name)?).await?;
        let stream = target.ok_or_else(|| format!("`{name}` is not listed"))?;
        println!("read {name} {}", stream.into_vec().await?.len());
    }
    Ok(())
}
