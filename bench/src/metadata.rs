//! What a refresh moves after ten releases were published, beside plain files, gzip and zstd of the same files; and what
//! verifying costs.
//!
//! The catalogue is one signed role; the tree is encoded by the code that `publish` runs and served by the code that
//! origin and node run. Bytes are those of bodies; the table shows those of whole requests and answers as well.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use fs_err as fs;
use mirabelle_keys::SigningKey;
use mirabelle_manifests::network::{catalogue_role, metadata_path};
use mirabelle_manifests::tuf::{
    DelegatedRole, Delegations, FileMeta, RoleKeys, RoleName, Root, Snapshot, TargetFile, Targets, Timestamp,
    sign,
};
use mirabelle_manifests::{
    Catalogue, Digest, Listing, PathPattern, Platform, TargetPath, Text, release_target,
};
use mirabelle_terminal::{Table, bytes};
use mirabelle_tests::Wan;
use mirabelle_transfer::serve::{self, Naming};
use mirabelle_transfer::{EncodedForms, Fetcher, MetadataStore, Repository, RetryPolicy, TufClient};
use tokio_util::sync::CancellationToken;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Catalogue sizes, in releases.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    releases: Vec<usize>,
    /// Releases published between the two refreshes.
    #[arg(long, default_value_t = 10)]
    published: usize,
    /// Signatures verified.
    #[arg(long, default_value_t = 10_000)]
    signatures: u32,
}

struct Keys {
    root: SigningKey,
    online: SigningKey,
    targets: SigningKey,
    approvers: [SigningKey; 2],
}

struct Measured {
    releases: usize,
    catalogue: u64,
    cold: u64,
    update: u64,
    on_wire: u64,
    plain: u64,
    gzip: u64,
    zstd: u64,
    encoding: Duration,
    refresh: Duration,
    reading: Duration,
    hashing: Duration,
}

pub(crate) fn run(arguments: &Arguments) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut table = Table::new([
        "releases",
        "catalogue",
        "first refresh",
        "refresh",
        "with headers",
        "plain",
        "gzip -6",
        "zstd -12",
        "encode (once)",
        "refresh takes",
        "parse + verify",
        "SHA-256 alone",
    ])
    .right([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let mut results = Vec::new();
    for releases in &arguments.releases {
        let measured = measure(&runtime, *releases, arguments.published);
        let seconds = |duration: Duration| format!("{:.3} s", duration.as_secs_f64());
        table.row([
            measured.releases.to_string(),
            bytes(measured.catalogue),
            bytes(measured.cold),
            measured.update.to_string(),
            measured.on_wire.to_string(),
            bytes(measured.plain),
            bytes(measured.gzip),
            bytes(measured.zstd),
            seconds(measured.encoding),
            seconds(measured.refresh),
            seconds(measured.reading),
            seconds(measured.hashing),
        ]);
        let thousands = releases / 1000;
        results.push(format!("refresh_{thousands}k_bytes={}", measured.update));
        let ratio = measured.reading.as_secs_f64() / measured.hashing.as_secs_f64();
        results.push(format!("verify_{thousands}k_vs_sha256={ratio:.0}"));
        results.push(format!("zstd_{thousands}k_ratio={:.0}", measured.zstd as f64 / measured.update as f64));
    }
    println!("{}\n", table.render());
    results.push(verify_signatures(arguments.signatures));
    println!("result: {}", results.join(" "));
}

fn measure(runtime: &tokio::runtime::Runtime, releases: usize, published: usize) -> Measured {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("public");
    let keys = Keys {
        root: SigningKey::generate(),
        online: SigningKey::generate(),
        targets: SigningKey::generate(),
        approvers: [SigningKey::generate(), SigningKey::generate()],
    };
    let mut catalogue = Targets::new(1, "2099-01-01T00:00:00Z".parse().unwrap());
    for number in 0..releases {
        list(&mut catalogue, number, 1);
    }
    let root = publish(&tree, &keys, 1, &catalogue);
    let store = MetadataStore::new(&directory.path().join("store"));
    store.trust(&root).unwrap();

    let stop = CancellationToken::new();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let served = tree.clone();
    let server = runtime.spawn(serve::run(
        listener,
        move |request, _| {
            let tree = served.clone();
            async move {
                let path = serve::file_of(request.uri().path()).unwrap();
                let mutable = path.as_str() == "metadata/timestamp.json";
                let naming = if mutable { Naming::Mutable } else { Naming::Immutable };
                serve::serve_document(request.method(), request.headers(), &tree, &path, naming).await
            }
        },
        stop.clone(),
    ));
    let link = Wan::start(&address, None, Duration::ZERO);
    let refresh = |store: &MetadataStore| {
        runtime.block_on(async {
            let fetcher = Fetcher::new(link.address().parse().unwrap(), RetryPolicy::default()).unwrap();
            let now = "2026-11-24T00:00:00Z".parse().unwrap();
            let mut client = TufClient::refresh(store, Repository::of(&fetcher), now).await.unwrap();
            client.delegated(&catalogue_role(), &RoleName::targets(), &RoleName::root()).await.unwrap();
            (fetcher.meter().received(), client.into_trusted())
        })
    };
    let (cold, _) = refresh(&store);

    // Ten packages get their next release; the ones before stay.
    for number in 0..published {
        list(&mut catalogue, number * (releases / published.max(1)), 2);
    }
    catalogue.version = 2;
    let begun = Instant::now();
    publish(&tree, &keys, 2, &catalogue);
    let encoding = begun.elapsed();
    let changed = ["timestamp.json", "2.snapshot.json", "2.catalogue.json"]
        .map(|name| fs::read(tree.join("metadata").join(name)).unwrap());
    let before = link.down() + link.up();
    let begun = Instant::now();
    let (update, trusted) = refresh(&store);
    let refresh_time = begun.elapsed();
    let on_wire = link.down() + link.up() - before;

    let role = trusted.delegated(&catalogue_role(), &RoleName::targets()).unwrap();
    let begun = Instant::now();
    let _ = mirabelle_manifests::tuf::Document::<Targets>::parse(&changed[2]).unwrap();
    assert_eq!(Catalogue::read(role).unwrap().iter().count(), releases + published);
    let reading = begun.elapsed();
    let begun = Instant::now();
    std::hint::black_box(Digest::of(&changed[2]));
    let hashing = begun.elapsed();
    stop.cancel();
    runtime.block_on(server).unwrap();
    let all = |encode: &dyn Fn(&[u8]) -> Vec<u8>| changed.iter().map(|file| encode(file).len() as u64).sum();
    Measured {
        releases,
        catalogue: changed[2].len() as u64,
        cold,
        update,
        on_wire,
        plain: all(&<[u8]>::to_vec),
        gzip: all(&|file| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(file).unwrap();
            encoder.finish().unwrap()
        }),
        zstd: all(&|file| zstd::encode_all(file, 12).unwrap()),
        encoding,
        refresh: refresh_time,
        reading,
        hashing,
    }
}

/// Lists a release as `approve` does, with texts of the usual length.
fn list(catalogue: &mut Targets, number: usize, version: u64) {
    let text = |language: &str| Text {
        fr: format!(
            "Logiciel {number} ({language}) pour la salle de classe : sciences, langues, dessin et calcul"
        ),
        en: format!(
            "Software {number} ({language}) for the classroom: science, languages, drawing and arithmetic"
        ),
    };
    let listing = Listing {
        categories: vec!["Education".into(), "Science".into()],
        conflicts: vec![],
        download_size: 10_000_000 + number as u64 * 7919 + version,
        installed_size: 40_000_000 + number as u64 * 104_729 + version,
        licence: "GPL-3.0-or-later".into(),
        name: format!("package-{number}").parse().unwrap(),
        platform: Platform::any(),
        requires: vec![],
        sequence: version,
        showcase: None,
        summary: text("summary"),
        title: Text { fr: format!("Paquet {number}"), en: format!("Package {number}") },
        version: format!("{version}.0").parse().unwrap(),
    };
    let path = release_target(&listing.name, &listing.version, &listing.platform);
    let file = TargetFile::of(
        format!("{number} {version}").as_bytes(),
        Some(serde_json::to_value(listing).unwrap()),
    );
    catalogue.targets.insert(path, file);
}

/// Writes and encodes one version of everything, as `publish` does; returns the root.
fn publish(tree: &Path, keys: &Keys, version: u64, catalogue: &Targets) -> Vec<u8> {
    let expires = "2099-01-01T00:00:00Z".parse().unwrap();
    let mut root = Root::new(1, expires);
    for (role, key) in [
        (RoleName::root(), &keys.root),
        (RoleName::targets(), &keys.targets),
        (RoleName::snapshot(), &keys.online),
        (RoleName::timestamp(), &keys.online),
    ] {
        root.roles.insert(role, RoleKeys { keyids: vec![key.public().id()], threshold: 1 });
        root.keys.insert(key.public().id(), key.public());
    }
    let approvers = keys.approvers.each_ref().map(SigningKey::public);
    let mut targets = Targets::new(1, expires);
    targets.targets.insert(TargetPath::new("trust/packagers.json"), TargetFile::of(b"{}", None));
    targets.delegations = Some(Delegations {
        roles: vec![DelegatedRole {
            name: catalogue_role(),
            keys: RoleKeys {
                keyids: approvers.iter().map(mirabelle_keys::PublicKey::id).collect(),
                threshold: 2,
            },
            terminating: true,
            paths: Some(vec![PathPattern::new("packages/*/*/*/release.json")]),
            path_hash_prefixes: None,
        }],
        keys: approvers.into_iter().map(|key| (key.id(), key)).collect(),
        bins: None,
    });
    let write = |role: &RoleName, version: Option<u64>, bytes: &[u8]| {
        let path = tree.join(metadata_path(role, version));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        if let Some(version) = version {
            let before = fs::read(tree.join(metadata_path(role, Some(version - 1)))).unwrap_or_default();
            EncodedForms::of(tree).add(&metadata_path(role, Some(version)), bytes, &[before]).unwrap();
        }
    };
    let root = sign(&root, &[&keys.root]).unwrap();
    write(&RoleName::root(), Some(1), &root);
    let mut snapshot = Snapshot::new(version, expires);
    for (role, version, bytes) in [
        (RoleName::targets(), 1, sign(&targets, &[&keys.targets]).unwrap()),
        (catalogue_role(), version, sign(catalogue, &keys.approvers.each_ref()).unwrap()),
    ] {
        write(&role, Some(version), &bytes);
        snapshot.meta.insert(role.meta_name(), FileMeta::of(version, &bytes));
    }
    let bytes = sign(&snapshot, &[&keys.online]).unwrap();
    write(&RoleName::snapshot(), Some(version), &bytes);
    let mut timestamp = Timestamp::new(version, expires);
    timestamp.meta.insert(RoleName::snapshot().meta_name(), FileMeta::of(version, &bytes));
    write(&RoleName::timestamp(), None, &sign(&timestamp, &[&keys.online]).unwrap());
    root
}

/// Verifies so many signatures through a keyring, beside `verify_strict` alone.
fn verify_signatures(count: u32) -> String {
    let key = SigningKey::generate();
    let public = key.public();
    let ring = mirabelle_keys::Keyring::new([(public.id(), public.clone())], 1).unwrap();
    let messages: Vec<_> = (0..count).map(|n| (n.to_le_bytes(), key.sign(&n.to_le_bytes()))).collect();
    let begun = Instant::now();
    for (message, signature) in &messages {
        ring.verify(message, std::slice::from_ref(signature)).unwrap();
    }
    let ours = begun.elapsed();
    let strict = ed25519_dalek::VerifyingKey::from_bytes(public.ed25519().unwrap()).unwrap();
    let begun = Instant::now();
    for (message, signature) in &messages {
        let signature = ed25519_dalek::Signature::from_slice(&signature.bytes).unwrap();
        strict.verify_strict(message, &signature).unwrap();
    }
    let alone = begun.elapsed();
    println!(
        "{count} signatures: {:.3} s through a keyring, {:.3} s with `verify_strict` alone",
        ours.as_secs_f64(),
        alone.as_secs_f64()
    );
    format!(
        "signatures_per_s={:.0} verify_vs_strict={:.2}",
        f64::from(count) / ours.as_secs_f64(),
        ours.as_secs_f64() / alone.as_secs_f64()
    )
}
