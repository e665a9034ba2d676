//! Passphrases and PINs: where they come from, and in which order.
//!
//! | | the passphrase of sealed keys | the PIN of a token |
//! |---|---|---|
//! | 1. the command line | `--passphrase-file FILE` | `pin-source=file:/path` in the key's address |
//! | 2. a systemd credential | `passphrase`, `mirabelle-passphrase` | `pin`, `mirabelle-pin` |
//! | 3. the environment | `MIRABELLE_PASSPHRASE` | `MIRABELLE_PIN` |
//! | 4. a person | a prompt | a prompt |
//!
//! The two never stand in for one another: a token that is given a passphrase as its PIN counts a wrong PIN, and locks
//! itself after a few. A person is asked for each sealed key that is opened, since each holder has her own passphrase;
//! once for all that a command makes; and once for each token. What was read or typed is wiped from memory after use.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_terminal::{Failure, OrFail};
use zeroize::Zeroizing;

/// More than anybody types.
const MAX_BYTES: usize = 4096;

/// A passphrase for a new key is not shorter: whoever has the file can guess at it for years.
const MIN_CHARACTERS: usize = 12;

/// A kind of secret, and its names.
struct Kind {
    word: &'static str,
    credentials: [&'static str; 2],
    variable: &'static str,
    hint: &'static str,
}

const PASSPHRASE: Kind = Kind {
    word: "passphrase",
    credentials: ["passphrase", "mirabelle-passphrase"],
    variable: "MIRABELLE_PASSPHRASE",
    hint: "give --passphrase-file FILE, or set MIRABELLE_PASSPHRASE",
};
const PIN: Kind = Kind {
    word: "PIN",
    credentials: ["pin", "mirabelle-pin"],
    variable: "MIRABELLE_PIN",
    hint: "add `pin-source=file:/path` to the key's address, or set MIRABELLE_PIN",
};

/// What opens keys.
pub(crate) struct Passphrase {
    file: Option<PathBuf>,
    /// Where systemd puts the credentials of a service.
    credentials: Option<PathBuf>,
    environment: BTreeMap<&'static str, Zeroizing<String>>,
    somebody_is_there: bool,
    for_new_keys: Option<Zeroizing<String>>,
    /// By label and serial number: two tokens of one label have a PIN each.
    pins: BTreeMap<(String, String), Zeroizing<String>>,
}

impl Passphrase {
    /// From `file`, if it is given, else from what this process was started with.
    pub(crate) fn from_environment(file: Option<PathBuf>) -> Self {
        let variable = |kind: Kind| Some((kind.variable, Zeroizing::new(std::env::var(kind.variable).ok()?)));
        Self {
            file,
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            environment: [PASSPHRASE, PIN].into_iter().filter_map(variable).collect(),
            somebody_is_there: std::io::stdin().is_terminal(),
            for_new_keys: None,
            pins: BTreeMap::new(),
        }
    }

    /// The passphrase of the sealed key `name`.
    pub(crate) fn opening(&self, name: &str) -> Result<Zeroizing<String>, Failure> {
        self.passphrase(&format!("Passphrase for `{name}`"), false)
    }

    /// A passphrase to seal the new key `name` with: long enough, and typed twice, since it must open again.
    pub(crate) fn sealing(&mut self, name: &str) -> Result<Zeroizing<String>, Failure> {
        if let Some(known) = &self.for_new_keys {
            return Ok(known.clone());
        }
        let passphrase = self.passphrase(&format!("Passphrase for the new key `{name}`"), true)?;
        let length = passphrase.chars().count();
        if length < MIN_CHARACTERS {
            return Err(Failure::usage(format!(
                "the passphrase for a new key is short: {length} characters"
            ))
            .hint(format!("{MIN_CHARACTERS} at least; five words drawn by lot are easy to keep in mind")));
        }
        self.for_new_keys = Some(passphrase.clone());
        Ok(passphrase)
    }

    fn passphrase(&self, prompt: &str, confirm: bool) -> Result<Zeroizing<String>, Failure> {
        let passphrase = match self.stored(&PASSPHRASE, self.file.as_deref())? {
            Some(stored) => stored,
            None => self.ask(&PASSPHRASE, prompt, confirm)?,
        };
        not_empty(&PASSPHRASE, passphrase)
    }

    /// The PIN of `token`; from `source`, if the key's address names one. With `last_try` only a person may say it: a
    /// stored one may be what spent the others.
    pub(crate) fn pin(
        &mut self,
        token: &str,
        serial: &str,
        source: Option<&Path>,
        last_try: bool,
    ) -> Result<Zeroizing<String>, Failure> {
        let token_itself = (token.to_owned(), serial.to_owned());
        if let Some(known) = self.pins.get(&token_itself) {
            return Ok(known.clone());
        }
        let stored = if last_try { None } else { self.stored(&PIN, source)? };
        let pin = match stored {
            Some(stored) => stored,
            None if last_try => self
                .ask(&PIN, &format!("PIN for token `{token}` (a wrong one locks it)"), false)
                .map_err(|failure| {
                    failure.hint(format!(
                        "token `{token}` locks itself after one more wrong PIN: type it at a terminal"
                    ))
                })?,
            None => self.ask(&PIN, &format!("PIN for token `{token}`"), false)?,
        };
        let pin = not_empty(&PIN, pin)?;
        self.pins.insert(token_itself, pin.clone());
        Ok(pin)
    }

    /// The secret from where nobody need be: a file, a credential, the environment.
    fn stored(&self, kind: &Kind, file: Option<&Path>) -> Result<Option<Zeroizing<String>>, Failure> {
        if let Some(file) = file {
            return read_first_line(kind, file, Readers::OwnerAlone).map(Some);
        }
        let credential = self.credentials.iter().flat_map(|directory| {
            kind.credentials.iter().map(|name| directory.join(name)).filter(|path| path.exists())
        });
        if let Some(path) = credential.into_iter().next() {
            return read_first_line(kind, &path, Readers::AsSystemdSays).map(Some);
        }
        Ok(self.environment.get(kind.variable).cloned())
    }

    fn ask(&self, kind: &Kind, prompt: &str, confirm: bool) -> Result<Zeroizing<String>, Failure> {
        if !self.somebody_is_there {
            return Err(Failure::usage(format!("a {} is needed, and nobody is there to type it", kind.word))
                .hint(kind.hint));
        }
        let read = |prompt: &str| {
            rpassword::prompt_password(format!("{prompt}: "))
                .map(Zeroizing::new)
                .or_fail(|| format!("cannot read the {}", kind.word))
        };
        let secret = read(prompt)?;
        if confirm && read("Once more")? != secret {
            return Err(Failure::usage(format!("the two {}s differ", kind.word)));
        }
        Ok(secret)
    }
}

fn not_empty(kind: &Kind, secret: Zeroizing<String>) -> Result<Zeroizing<String>, Failure> {
    if secret.is_empty() {
        return Err(Failure::usage(format!("the {} is empty", kind.word)));
    }
    Ok(secret)
}

/// Who may be able to read a file with a secret in it.
#[derive(Clone, Copy)]
enum Readers {
    OwnerAlone,
    /// systemd makes a credential readable for the service alone, by means that its mode does not always show.
    AsSystemdSays,
}

fn read_first_line(kind: &Kind, path: &Path, readers: Readers) -> Result<Zeroizing<String>, Failure> {
    let what = || format!("cannot read the {} from `{}`", kind.word, path.display());
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!("`{}` does not exist", path.display())));
        }
        file => file.or_fail(what)?,
    };
    if matches!(readers, Readers::OwnerAlone) {
        let mode = file.metadata().or_fail(what)?.permissions().mode();
        refuse_others(mode, &format!("the {} in", kind.word), path)?;
    }
    // All at once into memory that is wiped: a buffer that grows leaves its old bytes behind.
    let mut bytes = Zeroizing::new(vec![0; MAX_BYTES]);
    let mut length = 0;
    while length < MAX_BYTES {
        match file.read(&mut bytes[length..]).or_fail(what)? {
            0 => break,
            more => length += more,
        }
    }
    let line = bytes[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() == MAX_BYTES {
        return Err(Failure::usage(format!("the first line of `{}` is too long", path.display())));
    }
    let line =
        str::from_utf8(line).map_err(|_| Failure::usage(format!("`{}` is not text", path.display())))?;
    Ok(Zeroizing::new(line.to_owned()))
}

/// Refuses a file that others can read, as `ssh` does.
pub(crate) fn refuse_others(mode: u32, secret: &str, path: &Path) -> Result<(), Failure> {
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(Failure::usage(format!("others can read {secret} `{path}` (mode {:04o})", mode & 0o777))
            .hint(format!("chmod 600 {path}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret, or what the person sees instead.
    fn said(result: Result<Zeroizing<String>, Failure>) -> String {
        result.map_or_else(|failure| failure.render(), |secret| secret.to_string())
    }

    /// All sources there are, in a directory; which of them are there is up to the test.
    struct Sources {
        directory: tempfile::TempDir,
        passphrase: Passphrase,
    }

    impl Sources {
        fn none() -> Self {
            let passphrase = Passphrase {
                file: None,
                credentials: None,
                environment: BTreeMap::new(),
                somebody_is_there: false,
                for_new_keys: None,
                pins: BTreeMap::new(),
            };
            Self { directory: tempfile::tempdir().unwrap(), passphrase }
        }

        fn write(&self, name: &str, content: &str, mode: u32) -> PathBuf {
            let path = self.directory.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            path
        }

        fn environment(mut self, name: &'static str, value: &str) -> Self {
            self.passphrase.environment.insert(name, Zeroizing::new(value.to_owned()));
            self
        }

        fn credential(mut self, name: &str, value: &str) -> Self {
            self.write(name, value, 0o440);
            self.passphrase.credentials = Some(self.directory.path().to_owned());
            self
        }

        fn file(mut self, value: &str, mode: u32) -> Self {
            self.passphrase.file = Some(self.write("file", value, mode));
            self
        }

        fn opening(&mut self) -> String {
            said(self.passphrase.opening("k"))
        }

        fn sealing(&mut self) -> String {
            said(self.passphrase.sealing("k"))
        }

        fn pin(&mut self, source: Option<&Path>) -> String {
            said(self.passphrase.pin("t", "1", source, false))
        }
    }

    #[test]
    fn the_command_line_wins_over_a_credential_and_that_over_the_environment() {
        let environment = || Sources::none().environment("MIRABELLE_PASSPHRASE", "environment");
        let credential = || environment().credential("passphrase", "credential\n");
        assert_eq!(environment().opening(), "environment");
        assert_eq!(credential().opening(), "credential");
        assert_eq!(environment().credential("mirabelle-passphrase", "long\r\nname").opening(), "long");
        assert_eq!(credential().file("file\nsecond line", 0o600).opening(), "file");
        assert_eq!(environment().credential("other", "x").opening(), "environment");
    }

    #[test]
    fn a_pin_and_a_passphrase_never_stand_in_for_one_another() {
        let mut sources = Sources::none().environment("MIRABELLE_PASSPHRASE", "p").file("f", 0o600);
        assert!(sources.pin(None).contains("a PIN is needed, and nobody is there to type it"));
        let mut sources = Sources::none().environment("MIRABELLE_PIN", "1234");
        assert_eq!(sources.pin(None), "1234");
        assert!(sources.opening().contains("a passphrase is needed"));
        let mut sources = Sources::none().environment("MIRABELLE_PIN", "1").credential("pin", "2");
        let source = sources.write("pin-source", "3\n", 0o400);
        assert_eq!(sources.pin(Some(&source)), "3");
    }

    #[test]
    fn a_last_try_is_left_to_a_person() {
        let mut sources = Sources::none().environment("MIRABELLE_PIN", "1234");
        let failure = sources.passphrase.pin("t", "1", None, true).unwrap_err().render();
        assert!(failure.contains("locks itself after one more wrong PIN"), "{failure}");
    }

    #[test]
    fn refuses_a_file_that_others_can_read_and_an_empty_one() {
        for mode in [0o644, 0o640, 0o604] {
            let said = Sources::none().file("secret", mode).opening();
            assert!(said.contains("others can read the passphrase in `"), "{said}");
            assert!(said.contains("hint: chmod 600"), "{said}");
        }
        assert!(Sources::none().file("\nx", 0o600).opening().contains("the passphrase is empty"));
        assert!(Sources::none().file(&"x".repeat(5000), 0o600).opening().contains("too long"));
        let mut gone = Sources::none();
        gone.passphrase.file = Some(gone.directory.path().join("gone"));
        assert!(gone.opening().contains("does not exist"));
    }

    #[test]
    fn a_new_key_wants_a_long_passphrase_and_an_old_one_opens_with_any() {
        let short = || Sources::none().environment("MIRABELLE_PASSPHRASE", "mirabelles!");
        assert_eq!(short().opening(), "mirabelles!");
        assert!(short().sealing().contains("is short: 11 characters"));
        // Characters, not bytes.
        let accents = Sources::none().environment("MIRABELLE_PASSPHRASE", "éèàùéèàù");
        assert!({ accents }.sealing().contains("is short: 8 characters"));
        let long = Sources::none().environment("MIRABELLE_PASSPHRASE", "mirabelles !");
        assert_eq!({ long }.sealing(), "mirabelles !");
    }
}
