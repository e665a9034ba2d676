//! The command line.

mod deploy;
mod fleet;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mirabelle_identity::Person;
use mirabelle_manifests::{Instant, PackageName, Platform, SiteId, Version};
use mirabelle_terminal::{ByteCount, DocumentKind};
use mirabelle_transfer::Upstream;

pub use self::deploy::{Deploy, Deployable, For, When};
pub use self::fleet::{Benefit, FleetState, Machines, NodeCommand, RolloutsCommand, Watch};
use crate::key_location::KeyLocation;
use crate::token::Algorithm;

/// The signed-package repository of a département: build, approve, deploy and publish software for its colleges.
#[derive(Debug, Parser)]
#[command(name = "mirabelle-publisher", version, max_term_width = 110)]
pub struct Cli {
    /// The repository's directory.
    #[arg(long, global = true, env = "MIRABELLE_REPOSITORY", default_value = "repository")]
    pub repository: PathBuf,
    /// Print one JSON value instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// A file whose first line is the passphrase of sealed keys; else the systemd credential `passphrase`, else
    /// `MIRABELLE_PASSPHRASE`, else a prompt.
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, show and use signing keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Create a repository with all its roles; asks what it is not told.
    Init(Init),
    /// Build a release from a recipe and sign it as its packager.
    Build(Build),
    /// Hand a built release in for approval.
    Submit(Submit),
    /// Show what a submitted release changes against the one approved before it.
    Review(Review),
    /// Approve submitted releases with an approver's key.
    Approve(Approve),
    /// Decide what goes where, how and when: show, change or replace the deployment.
    Deploy(Box<Deploy>),
    /// Hold releases back everywhere, with the brake's key.
    Pause(Pause),
    /// Let paused releases go on.
    Resume(Pause),
    /// Authorise packagers, end their authorisation, and list them.
    #[command(subcommand)]
    Packager(PackagerCommand),
    /// Change who holds a role: replace a key, add or remove one, set the threshold, renew.
    #[command(subcommand)]
    Role(RoleCommand),
    /// Changes that wait for signatures: export, import, show, drop.
    #[command(subcommand)]
    Draft(DraftCommand),
    /// Sign a draft on the machine where the key is; needs no repository.
    Sign(Sign),
    /// Make the deltas between published releases that machines may need, and drop the others; needs no key.
    Deltas(MakeDeltas),
    /// Publish what is signed, and renew freshness, with the online key.
    Publish(Publish),
    /// Say what is published, what waits and for whom, and what expires when.
    Status,
    /// Look for what is not wrong yet: expiries near, releases that lead nowhere, keys in two hands.
    Check(Check),
    /// Read, verify and export the log of who did what.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Check everything that is published, as a workstation would and down to the last object.
    Verify,
    /// Print the code that enrols the node of a college: all that it has to be told.
    EnrolmentCode(EnrolmentCode),
    /// Serve the published tree over HTTP.
    Serve(Serve),
    /// Which keys speak for the nodes of colleges.
    #[command(subcommand)]
    Node(NodeCommand),
    /// What machines are, and what they reported.
    Machines(Machines),
    /// Releases on their way through the rings of their rollouts.
    #[command(subcommand)]
    Rollouts(RolloutsCommand),
    /// What was saved: bytes over the links, hours of computers that were off, days until releases were everywhere.
    Benefit(Benefit),
    /// What is kept of people: pseudonyms, and what each chose.
    #[command(subcommand)]
    Person(PersonCommand),
    /// Print the man page or shell completions.
    Print {
        /// Which.
        kind: DocumentKind,
    },
}

/// Keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key: in a file, sealed with a passphrase, or on a token, which it never leaves.
    New {
        /// The file to make, beside which its public half goes as `.pub`; or `pkcs11:token=NAME;object=LABEL`.
        key: KeyLocation,
        /// Its type; a file holds Ed25519 keys only.
        #[arg(long = "type", value_enum, default_value_t = Algorithm::Ed25519)]
        algorithm: Algorithm,
    },
    /// Show a key's id and public half; needs no passphrase and no PIN.
    Show {
        /// A sealed key, a `.pub` file, or a key on a token.
        key: KeyLocation,
    },
    /// Sign a file's exact bytes; prints the signature as JSON.
    Sign {
        /// The file.
        file: PathBuf,
        /// The key: a sealed file, or `pkcs11:…` on a token.
        #[arg(long)]
        key: KeyLocation,
    },
    /// Check a signature that `sign` printed.
    Verify {
        /// The file.
        file: PathBuf,
        /// The signature.
        #[arg(long)]
        signature: PathBuf,
        /// The public key.
        #[arg(long)]
        public: KeyLocation,
    },
}

/// Create a repository.
#[derive(Debug, Args)]
pub struct Init {
    /// Where the keys are, or are made: root-1.key …, targets.key, approver-1.key …, operator-1.key …, brake.key,
    /// online.key, packager-1.key. A key that is there is used.
    #[arg(long, default_value = "keys")]
    pub keys: PathBuf,
    /// Keys of the root role.
    #[arg(long)]
    pub root_keys: Option<u32>,
    /// How many of them must sign.
    #[arg(long)]
    pub root_threshold: Option<u32>,
    /// Approvers (the rectorat).
    #[arg(long)]
    pub approvers: Option<u32>,
    /// How many of them must approve a release.
    #[arg(long)]
    pub approval_threshold: Option<u32>,
    /// Operators (the département), who decide what goes where.
    #[arg(long)]
    pub operators: Option<u32>,
    /// How many of them must sign a deployment.
    #[arg(long)]
    pub operator_threshold: Option<u32>,
    /// Split the catalogue into two to this power of hash bins (TAP 15); for more than 15,000 releases, and for good.
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(1..=12))]
    pub bins: Option<u8>,
    /// Package names that packager-1 may sign, as patterns.
    #[arg(long, value_delimiter = ',')]
    pub packages: Vec<String>,
    /// Ask nothing: what is not given takes its default.
    #[arg(long)]
    pub yes: bool,
}

/// Build a release.
#[derive(Debug, Args)]
pub struct Build {
    /// The recipe, a TOML file.
    pub recipe: PathBuf,
    /// The packager's key: a sealed file, or `pkcs11:…` on a token.
    #[arg(long)]
    pub key: KeyLocation,
    /// Where to put the built release.
    #[arg(long, default_value = "built")]
    pub out: PathBuf,
    /// zstd level, 1 to 19; the bundle's bytes depend on it.
    #[arg(long, default_value_t = mirabelle_content::bundle::DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
    /// Frames compressed at once (up to 100 MB of memory each).
    #[arg(long, default_value = "1")]
    pub jobs: NonZeroUsize,
}

/// Hand in a built release.
#[derive(Debug, Args)]
pub struct Submit {
    /// The directory that `build` made.
    pub built: PathBuf,
}

/// A release by name and version.
#[derive(Clone, Debug, Args)]
pub struct ReleaseName {
    /// `NAME@VERSION`
    pub release: NameAtVersion,
    /// Its platform, if there are several.
    #[arg(long)]
    pub platform: Option<Platform>,
}

/// Review.
#[derive(Debug, Args)]
pub struct Review {
    /// The submitted release.
    #[command(flatten)]
    pub release: ReleaseName,
    /// Write it as a page for a browser, too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `NAME@VERSION`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAtVersion {
    /// The package.
    pub name: PackageName,
    /// The version.
    pub version: Version,
}

impl std::str::FromStr for NameAtVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = text.split_once('@').ok_or("expected NAME@VERSION")?;
        Ok(Self {
            name: name.parse().map_err(|e: mirabelle_manifests::NameError| e.to_string())?,
            version: version.parse().map_err(|e: mirabelle_manifests::NameError| e.to_string())?,
        })
    }
}

impl std::fmt::Display for NameAtVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Approve.
#[derive(Debug, Args)]
pub struct Approve {
    /// Releases, as `NAME@VERSION`.
    #[arg(required = true)]
    pub releases: Vec<NameAtVersion>,
    /// Their platform, if there are several.
    #[arg(long)]
    pub platform: Option<Platform>,
    /// An approver's key (a sealed file, or `pkcs11:…`); may be given several times. Without one, only a draft is made.
    #[arg(long = "key")]
    pub keys: Vec<KeyLocation>,
    /// Start over from what is approved: drop a draft that waits for signatures.
    #[arg(long)]
    pub discard_draft: bool,
}

/// Pause or resume.
#[derive(Debug, Args)]
pub struct Pause {
    /// The release.
    #[command(flatten)]
    pub release: ReleaseName,
    /// Why, for whoever asks.
    #[arg(long, default_value = "paused by the operators")]
    pub reason: String,
    /// The brake's key: a sealed file, or `pkcs11:…` on a token.
    #[arg(long)]
    pub key: KeyLocation,
}

/// Packagers.
#[derive(Debug, Subcommand)]
pub enum PackagerCommand {
    /// List who may package what.
    List,
    /// Authorise a packager.
    Add {
        /// Her public key: a `.pub` file, a sealed key, or `pkcs11:…` on a token.
        public: KeyLocation,
        /// Package names she may sign, as patterns.
        #[arg(long, value_delimiter = ',', required = true)]
        packages: Vec<String>,
        /// From when her releases count (RFC 3339); now, if not given.
        #[arg(long)]
        from: Option<Instant>,
        /// Until when (RFC 3339); in two years, if not given.
        #[arg(long)]
        until: Option<Instant>,
        /// A key of the targets role (a sealed file, or `pkcs11:…`). Without one, only a draft is made.
        #[arg(long = "key")]
        keys: Vec<KeyLocation>,
    },
    /// End a packager's authorisation. What she packaged before stays installable, and nothing is signed again.
    Revoke {
        /// The beginning of her key's id, as `packager list` shows it.
        id: String,
        /// From when on her releases no longer count (RFC 3339); now, if not given. For a stolen key: before the theft.
        #[arg(long)]
        from: Option<Instant>,
        /// A key of the targets role (a sealed file, or `pkcs11:…`). Without one, only a draft is made.
        #[arg(long = "key")]
        keys: Vec<KeyLocation>,
    },
}

/// Who holds a role.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// List the roles, their keys and thresholds.
    List,
    /// Put a new key in the place of one that was lost, stolen, or whose holder leaves.
    ReplaceKey {
        /// The role, or several: `snapshot,timestamp`.
        role: String,
        /// The beginning of the old key's id.
        old: String,
        /// The new public key: a `.pub` file, a sealed key, or `pkcs11:…` on a token.
        new: KeyLocation,
        /// Who signs.
        #[command(flatten)]
        signing: Signing,
    },
    /// Add a holder.
    AddKey {
        /// The role, or several: `snapshot,timestamp`.
        role: String,
        /// The public key: a `.pub` file, a sealed key, or `pkcs11:…` on a token.
        new: KeyLocation,
        /// Who signs.
        #[command(flatten)]
        signing: Signing,
    },
    /// Remove a holder.
    RemoveKey {
        /// The role, or several: `snapshot,timestamp`.
        role: String,
        /// The beginning of the key's id.
        old: String,
        /// Who signs.
        #[command(flatten)]
        signing: Signing,
    },
    /// Set how many holders must sign.
    Threshold {
        /// The role, or several: `snapshot,timestamp`.
        role: String,
        /// How many.
        threshold: u32,
        /// Who signs.
        #[command(flatten)]
        signing: Signing,
    },
    /// Sign a role anew before it expires; nothing else changes.
    Renew {
        /// The role.
        role: String,
        /// Who signs.
        #[command(flatten)]
        signing: Signing,
    },
}

/// The keys that sign a change.
#[derive(Debug, Args)]
pub struct Signing {
    /// A key (a sealed file, or `pkcs11:…`) of a role that must sign; may be given several times. The rest is gathered
    /// with `draft export`, `sign` and `draft import`.
    #[arg(long = "key")]
    pub keys: Vec<KeyLocation>,
    /// Say what would change and who would have to sign, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Changes that wait for signatures.
#[derive(Debug, Subcommand)]
pub enum DraftCommand {
    /// Write the draft of a role as a file that travels.
    Export {
        /// The role.
        role: String,
        /// The file; `ROLE-VERSION.draft.json`, if not given.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Add signatures that were made elsewhere; what is complete then takes its place.
    Import {
        /// Signature files, as `sign` made them.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say in words what a draft changes, and who has signed it.
    Show {
        /// The role.
        role: String,
    },
    /// Drop a draft and the signatures under it.
    Discard {
        /// The role.
        role: String,
    },
}

/// Sign a draft.
#[derive(Debug, Args)]
pub struct Sign {
    /// The draft, as `draft export` wrote it.
    pub file: PathBuf,
    /// The key: a sealed file, or `pkcs11:…` on a token.
    #[arg(long)]
    pub key: KeyLocation,
    /// Where to put the signature; beside the draft, if not given.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Sign without asking.
    #[arg(long)]
    pub yes: bool,
}

/// Look for what is not wrong yet.
#[derive(Debug, Args)]
pub struct Check {
    /// Days before an expiry from which on it counts as near.
    #[arg(long, default_value_t = 30)]
    pub days: u16,
}

/// The audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no line was changed or removed, and that it holds what published snapshots say it does.
    Verify {
        /// Snapshots that nodes have kept (`served/metadata/<n>.snapshot.json`), witnesses that this server cannot change.
        snapshots: Vec<PathBuf>,
    },
    /// Print it.
    Show,
    /// Print it for other programs.
    Export {
        /// One JSON object a line, or syslog lines.
        #[arg(long, value_enum, default_value_t = AuditFormat::Json)]
        format: AuditFormat,
    },
}

/// Formats of the exported log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AuditFormat {
    /// One JSON object a line.
    Json,
    /// RFC 5424.
    Rfc5424,
}

/// Publish.
#[derive(Debug, Args)]
pub struct Publish {
    /// The online key: a sealed file, or `pkcs11:…` on a token.
    #[arg(long)]
    pub key: KeyLocation,
    /// Make no deltas now; `deltas` does later, and until then machines fetch ranges of the bundles.
    #[arg(long)]
    pub without_deltas: bool,
    /// Wait for packs (for first installs), too; otherwise `deltas` makes them later.
    #[arg(long, conflicts_with = "without_deltas")]
    pub with_packs: bool,
}

/// Make deltas. What is not given is as `[deltas]` in repository.toml says.
#[derive(Debug, Args)]
pub struct MakeDeltas {
    /// From so many releases before each that is newest or deployed.
    #[arg(long)]
    pub last: Option<usize>,
    /// From this release too, as `NAME@VERSION`; may be given several times.
    #[arg(long, value_name = "NAME@VERSION")]
    pub also: Vec<NameAtVersion>,
    /// Make no packs (deltas from nothing, for first installs).
    #[arg(long)]
    pub without_packs: bool,
    /// 1 (quick) to 3 (smallest).
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub effort: Option<u8>,
    /// Threads.
    #[arg(long)]
    pub jobs: Option<NonZeroUsize>,
    /// Memory: `2 GiB`. One delta is made at a time even where it needs more.
    #[arg(long)]
    pub memory: Option<ByteCount>,
    /// Say which deltas are needed and how they stand, and make and drop none.
    #[arg(long)]
    pub dry_run: bool,
}

/// Enrol a node.
#[derive(Debug, Args)]
pub struct EnrolmentCode {
    /// The college it stands in.
    #[arg(long)]
    pub college: SiteId,
    /// Where nodes reach this repository: `https://origin.example/`.
    #[arg(long)]
    pub origin: Upstream,
}

/// What is kept of people.
#[derive(Debug, Subcommand)]
pub enum PersonCommand {
    /// List the pseudonyms of whom something is kept.
    List,
    /// Print all that is kept of a person.
    Export {
        /// Her pseudonym: her own page in the store shows it.
        person: Person,
    },
    /// Erase all that is kept of a person. An offline code of hers counts no more once `serve` is started again.
    Erase {
        /// Her pseudonym.
        person: Person,
    },
}

/// Serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// The address to listen on; port 0 takes a free one. The address in use is printed.
    #[arg(long, default_value = "127.0.0.1:8700")]
    pub listen: SocketAddr,
    /// Serve people as well: what teachers choose, offline codes, orders for rooms. The file of the key that signs those lists, made if
    /// it is missing; its public half goes into the deployment's `sign-in`.
    #[arg(long, value_name = "KEY")]
    pub people: Option<PathBuf>,
    /// Take the reports of machines as well, and keep them here: `embedded`, or `postgres://user:password@host/database`.
    #[arg(long, env = "MIRABELLE_FLEET", value_name = "ENGINE", hide_env_values = true)]
    pub fleet: Option<String>,
}
