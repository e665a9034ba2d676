//! A key on a token signs like one in a file: a workstation installs what it signed. What is wrong with a token is said
//! in one clear sentence, and a wrong PIN is tried once.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use mirabelle_tests::{App, Outcome, World, run};

const PIN: &str = "571000";

/// Where distributions put the library of `SoftHSM` (Debian and Ubuntu, Fedora).
const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];

/// Tokens made of software, in a directory.
struct Tokens {
    configuration: PathBuf,
    module: &'static str,
}

impl Tokens {
    fn in_directory(directory: &Path) -> Self {
        let module = MODULES.into_iter().find(|module| Path::new(module).exists());
        let tokens = directory.join("tokens");
        fs::create_dir(&tokens).unwrap();
        let configuration = directory.join("softhsm2.conf");
        let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
        fs::write(&configuration, text).unwrap();
        Self { configuration, module: module.expect("softhsm2 is installed (./test installs it)") }
    }

    /// Plugs in another.
    fn add(&self, label: &str) {
        let mut init = Command::new("softhsm2-util");
        init.args(["--init-token", "--free", "--label", label, "--so-pin", "57100000", "--pin", PIN]);
        run(init.env("SOFTHSM2_CONF", &self.configuration)).succeeds();
    }

    /// The publisher, which sees them, and is given `pin`.
    fn publisher(&self, world: &World, pin: &str, arguments: &[&str]) -> Outcome {
        let mut command = world.publisher_command();
        command
            .args(arguments)
            .env("SOFTHSM2_CONF", &self.configuration)
            .env("MIRABELLE_PKCS11_MODULE", self.module)
            .env("MIRABELLE_PIN", pin);
        run(&mut command)
    }
}

#[test]
fn a_workstation_installs_what_packagers_sign_with_their_tokens() {
    let mut world = World::new().college("57001").workstations(1).start();
    let tokens = Tokens::in_directory(world.directory());
    tokens.add("Packagers");

    for (kind, name) in [("ed25519", "hello"), ("p256", "salut")] {
        let key = format!("pkcs11:token=Packagers;object={name}");
        let made = tokens.publisher(&world, PIN, &["--json", "key", "new", &key, "--type", kind]).succeeds();
        // Everybody may see the public half, and no PIN is asked for.
        let shown = tokens.publisher(&world, "", &["--json", "key", "show", &key]).succeeds();
        assert_eq!(made.json(), shown.json());
        assert!(made.json()["public"]["scheme"].as_str().unwrap().contains(kind.trim_start_matches('p')));

        let add = ["packager", "add", &key, "--packages", name, "--key", "keys/targets.key"];
        tokens.publisher(&world, "", &add).succeeds();
        let app = App::new(name, 1).noise("data", 200_000, 1);
        let work = world.path(name);
        let recipe = app.write(&work);
        tokens.publisher(&world, PIN, &["build", recipe.to_str().unwrap(), "--key", &key]).succeeds();
        world.publisher(["submit", &format!("built/{name}-1.0-any")]).succeeds();
        world.approve(&app);
        world.deploy(&app, "all");
    }
    world.publish();

    let college = world.college("57001");
    college.sync();
    for name in ["hello", "salut"] {
        college.workstation(0).run(["install", name]).succeeds();
        let said = college.workstation(0).launch(name, &[]).succeeds().stdout;
        assert_eq!(said, format!("{name} 1.0\n"));
    }
}

/// A smartcard with P-256 in the place of an approver's file: her key stands in root and targets as a PEM block, and her
/// signature counts for every workstation.
#[test]
fn an_approver_signs_with_a_p256_token_from_a_draft_that_travelled() {
    let mut world = World::new().college("57001").workstations(1).start();
    let tokens = Tokens::in_directory(world.directory());
    tokens.add("Rectorat");
    let card = "pkcs11:token=Rectorat;object=claire";
    tokens.publisher(&world, PIN, &["key", "new", card, "--type", "p256"]).succeeds();
    let old = world.publisher(["--json", "key", "show", "keys/approver-2.pub"]).succeeds().json();
    let old = &old["key_id"].as_str().unwrap()[..12];
    let keys = ["keys/root-1.key", "keys/root-2.key", "keys/targets.key", "keys/approver-1.key", card];
    let mut replace = vec!["role", "replace-key", "catalogue", old, card];
    replace.extend(keys.iter().flat_map(|key| ["--key", key]));
    let replaced = tokens.publisher(&world, PIN, &replace).succeeds().stdout;
    assert!(replaced.contains("`catalogue` is complete"), "{replaced}");
    world.publish();

    let app = App::new("hello", 1);
    world.submit(&app);
    world.publisher(["approve", &app.label(), "--key", "keys/approver-1.key"]).succeeds();
    world.publisher(["draft", "export", "catalogue", "--out", "c.json"]).succeeds();
    tokens.publisher(&world, PIN, &["sign", "c.json", "--key", card, "--yes", "--out", "c.sig"]).succeeds();
    world.publisher(["draft", "import", "c.sig"]).succeeds();
    world.deploy(&app, "all");
    world.publish();
    let college = world.college("57001");
    college.sync();
    college.workstation(0).run(["install", "hello"]).succeeds();
    assert_eq!(college.workstation(0).launch("hello", &[]).succeeds().stdout, "hello 1.0\n");
}

#[test]
fn a_wrong_pin_is_tried_once_and_locks_nothing() {
    let world = World::new().start();
    let tokens = Tokens::in_directory(world.directory());
    tokens.add("Rectorat");
    let key = "pkcs11:token=Rectorat;object=k";
    tokens.publisher(&world, PIN, &["key", "new", key]).succeeds();
    fs::write(world.path("message"), "message").unwrap();
    let sign =
        |pin: &str, key: &str| tokens.publisher(&world, pin, &["key", "sign", "message", "--key", key]);

    let outcome = sign("000000", key).fails(2, "wrong PIN for token `Rectorat`");
    assert!(outcome.stderr.contains("hint: it was tried once"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("wrong PIN").count(), 1, "{}", outcome.stderr);
    sign("", key).fails(2, "the PIN is empty");
    let signature = sign(PIN, key).succeeds().stdout;
    fs::write(world.path("signature"), signature).unwrap();
    let verify = ["key", "verify", "message", "--signature", "signature", "--public", key];
    tokens.publisher(&world, "", &verify).succeeds();

    // The PIN in a file, which comes before the environment and is for its owner alone.
    let pin = world.path("pin");
    fs::write(&pin, format!("{PIN}\n")).unwrap();
    let with_source = format!("{key}?pin-source=file:{}", pin.display());
    fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    sign("000000", &with_source).fails(2, "others can read the PIN in");
    fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    sign("000000", &with_source).succeeds();

    // The passphrase of the sealed keys, which is set too, is never taken for the PIN.
    let mut sign = world.publisher_command();
    sign.args(["key", "sign", "message", "--key", key]).env("SOFTHSM2_CONF", &tokens.configuration);
    sign.env("MIRABELLE_PKCS11_MODULE", tokens.module);
    run(&mut sign).fails(2, "a PIN is needed, and nobody is there to type it");
}

/// The public object beside a private key is only somebody's word for it.
#[test]
fn a_signature_that_its_public_key_does_not_verify_never_leaves_the_program() {
    let world = World::new().start();
    let tokens = Tokens::in_directory(world.directory());
    tokens.add("Rectorat");
    let (key, other) = ("pkcs11:token=Rectorat;object=k", "pkcs11:token=Rectorat;object=other");
    tokens.publisher(&world, PIN, &["key", "new", key, "--type", "p256"]).succeeds();
    let other = tokens.publisher(&world, PIN, &["key", "new", other, "--type", "p256"]).succeeds().stdout;
    fs::write(world.path("other.pem"), &other[other.find("-----BEGIN").unwrap()..]).unwrap();
    let mut der = Command::new("openssl");
    der.args(["pkey", "-pubin", "-in", "other.pem", "-outform", "DER", "-out", "other.der"]);
    run(der.current_dir(world.directory())).succeeds();
    for swap in [["--delete-object", "--type", "pubkey"], ["--write-object", "other.der", "--type=pubkey"]] {
        let mut tool = Command::new("pkcs11-tool");
        tool.args(["--module", tokens.module, "--token-label", "Rectorat", "--login", "--pin", PIN]);
        tool.args(["--label", "k"]).args(swap).env("SOFTHSM2_CONF", &tokens.configuration);
        run(tool.current_dir(world.directory())).succeeds();
    }

    let sign = ["key", "sign", "other.pem", "--key", key];
    let outcome = tokens.publisher(&world, PIN, &sign).fails(2, "token `Rectorat` signed wrongly");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn what_is_wrong_with_a_token_is_said() {
    let world = World::new().start();
    let tokens = Tokens::in_directory(world.directory());
    tokens.add("Rectorat");
    fs::write(world.path("message"), "message").unwrap();
    tokens.publisher(&world, PIN, &["key", "new", "pkcs11:token=Rectorat;object=k;id=%01"]).succeeds();
    tokens.publisher(&world, PIN, &["key", "new", "pkcs11:token=Rectorat;object=other;id=%02"]).succeeds();

    let cases = [
        ("pkcs11:token=Nancy;object=k", "token `Nancy` is not there"),
        ("pkcs11:token=Rectorat;serial=1;object=k", "token `Rectorat` is not there"),
        ("pkcs11:token=Rectorat;object=l", "token `Rectorat` has no private key `l`"),
        ("pkcs11:token=Rectorat;object=k;id=%02", "token `Rectorat` has no private key `k` (id 02)"),
        (
            "pkcs11:token=Rectorat;object=k?module-path=/no/such.so",
            "the PKCS#11 module `/no/such.so` cannot be used",
        ),
        ("pkcs11:object=k", "it does not say on which token"),
        ("pkcs11:token=Rectorat", "it does not say which key of the token"),
        ("pkcs11:token=Rectorat;object=k?pin-value=571000", "`pin-value` shows the PIN to everybody"),
    ];
    for (key, words) in cases {
        tokens.publisher(&world, PIN, &["key", "sign", "message", "--key", key]).fails(2, words);
    }
    let outcome = tokens.publisher(&world, PIN, &["key", "show", "pkcs11:token=Nancy;object=k"]);
    assert!(outcome.fails(2, "is not there").stderr.contains("hint: there are: `Rectorat`"));
    let show = ["key", "show", "pkcs11:token=Rectorat;object=gone"];
    tokens.publisher(&world, PIN, &show).fails(2, "has no public key `gone`");

    let again = ["key", "new", "pkcs11:token=Rectorat;object=k"];
    tokens.publisher(&world, PIN, &again).fails(1, "token `Rectorat` has a key `k` already");
    let sealed = ["key", "new", "keys/new.key", "--type", "p256"];
    tokens.publisher(&world, PIN, &sealed).fails(2, "a sealed file does not hold a P-256 key");

    let mut without_module = world.publisher_command();
    without_module
        .args(["key", "show", "pkcs11:token=Rectorat;object=k"])
        .env_remove("MIRABELLE_PKCS11_MODULE");
    run(&mut without_module).fails(2, "nothing says which PKCS#11 module speaks to token `Rectorat`");

    // Two of one name: the serial number tells them apart.
    tokens.add("Rectorat");
    let sign = ["key", "sign", "message", "--key", "pkcs11:token=Rectorat;object=k"];
    tokens.publisher(&world, PIN, &sign).fails(2, "2 tokens are called `Rectorat`");
}
