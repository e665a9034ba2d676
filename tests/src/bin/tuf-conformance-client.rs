//! The client under test of the official TUF conformance suite, over the very code that node and workstation use.
//!
//! ```text
//! tuf-conformance-client --metadata-dir D init ROOT.json
//! tuf-conformance-client --metadata-url U --metadata-dir D refresh
//! tuf-conformance-client --metadata-url U --metadata-dir D --target-name P … --target-dir T --target-base-url B download
//! ```
//!
//! Exits with 0 or 1 and nothing else: the suite takes any other code for a crash. Linked dynamically, since the suite
//! sets the time with `faketime`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mirabelle_manifests::{Instant, TargetPath};
use mirabelle_terminal::{Failure, OrFail, runtime};
use mirabelle_transfer::{Fetcher, MetadataStore, Repository, RetryPolicy, TufClient, Upstream};

#[derive(Debug, Parser)]
#[command(name = "tuf-conformance-client", about = "The client under test of the TUF conformance suite")]
struct Cli {
    /// Where trusted metadata is kept.
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Where metadata is fetched from.
    #[arg(long)]
    metadata_url: Option<Upstream>,
    /// A target to download; may be given several times.
    #[arg(long = "target-name")]
    target_names: Vec<String>,
    /// Where targets are put.
    #[arg(long)]
    target_dir: Option<PathBuf>,
    /// Where targets are fetched from.
    #[arg(long)]
    target_base_url: Option<Upstream>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Trust a root; asks nobody.
    Init {
        /// The root.
        root: PathBuf,
    },
    /// Refresh the top-level metadata.
    Refresh,
    /// Refresh, then download each target in order, up to the first that fails.
    Download,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{}", failure.render());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let store = MetadataStore::new(&cli.metadata_dir);
    match &cli.verb {
        Verb::Init { root } => {
            let what = || format!("cannot trust `{}`", root.display());
            store.trust(&fs_err::read(root).or_fail(what)?).or_fail(what)
        }
        Verb::Refresh => runtime()?.block_on(async { refresh(cli, &store).await.map(|_| ()) }),
        Verb::Download => runtime()?.block_on(download(cli, &store)),
    }
}

async fn refresh<'a>(cli: &Cli, store: &'a MetadataStore) -> Result<TufClient<'a>, Failure> {
    let ask = |upstream: &Option<Upstream>, option: &str| {
        let upstream = upstream.clone().ok_or_else(|| Failure::usage(format!("{option} is missing")))?;
        Fetcher::new(upstream, RetryPolicy::default()).or_fail(|| "cannot start".to_owned())
    };
    let metadata = ask(&cli.metadata_url, "--metadata-url")?;
    let targets = match &cli.verb {
        Verb::Download => ask(&cli.target_base_url, "--target-base-url")?,
        _ => metadata.clone(),
    };
    TufClient::refresh(store, Repository { metadata, targets }, Instant::now())
        .await
        .or_fail(|| "cannot refresh".to_owned())
}

async fn download(cli: &Cli, store: &MetadataStore) -> Result<(), Failure> {
    let directory = cli.target_dir.as_ref().ok_or_else(|| Failure::usage("--target-dir is missing"))?;
    let mut client = refresh(cli, store).await?;
    for name in &cli.target_names {
        client
            .download(&TargetPath::new(name), directory)
            .await
            .or_fail(|| format!("cannot download `{name}`"))?;
    }
    Ok(())
}
