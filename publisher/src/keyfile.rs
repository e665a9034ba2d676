//! Sealed keys as files, and the passphrases that open them.
//!
//! Key files are made readable by their owner alone, and one that others can read is refused, as `ssh` does.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_keys::{PublicKey, SealedKey, SealingCost, Signer, SigningKey};
use mirabelle_terminal::{Failure, OrFail};
use zeroize::Zeroizing;

/// A key file is a few hundred bytes.
const MAX_KEY_BYTES: u64 = 16 << 10;
const VARIABLE: &str = "MIRABELLE_PASSPHRASE";

/// Where the passphrase comes from: a file, the environment, or a prompt; asked for once per command.
pub(crate) struct Passphrase {
    file: Option<PathBuf>,
    known: Option<Zeroizing<String>>,
}

impl Passphrase {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file, known: None }
    }

    /// The passphrase; `confirm` asks a person twice, since what is about to be sealed must open again.
    fn get(&mut self, prompt: &str, confirm: bool) -> Result<Zeroizing<String>, Failure> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let passphrase = if let Some(file) = &self.file {
            let text = Zeroizing::new(read(file)?);
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        } else if let Ok(value) = std::env::var(VARIABLE) {
            Zeroizing::new(value)
        } else {
            ask(prompt, confirm)?
        };
        if passphrase.is_empty() {
            return Err(Failure::usage("the passphrase is empty"));
        }
        self.known = Some(passphrase.clone());
        Ok(passphrase)
    }
}

fn ask(prompt: &str, confirm: bool) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("a passphrase is needed, and nobody is there to type it")
            .hint(format!("give --passphrase-file FILE, or set {VARIABLE}")));
    }
    let read = |prompt: &str| {
        rpassword::prompt_password(format!("{prompt}: "))
            .map(Zeroizing::new)
            .or_fail(|| "cannot read the passphrase".to_owned())
    };
    let passphrase = read(prompt)?;
    if confirm && read("Once more")? != passphrase {
        return Err(Failure::usage("the two passphrases differ"));
    }
    Ok(passphrase)
}

/// Makes a key at `path`, and its public half beside it.
pub(crate) fn create(path: &Path, passphrase: &mut Passphrase) -> Result<Key, Failure> {
    let what = || format!("cannot make the key `{}`", path.display());
    if fs::exists(path).or_fail(what)? {
        return Err(Failure::no(format!("`{}` exists already", path.display())));
    }
    let passphrase = passphrase.get(&format!("Passphrase for the new key `{}`", path.display()), true)?;
    let key = SigningKey::generate();
    let sealed = SealedKey::seal(&key, passphrase.as_bytes(), SealingCost::STANDARD).or_fail(what)?;
    durable::write_atomically(path, sealed.to_text().as_bytes()).or_fail(what)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).or_fail(what)?;
    let public = key.public().to_pem().unwrap_or_default();
    durable::write_atomically(&path.with_extension("pub"), public.as_bytes()).or_fail(what)?;
    Ok(Box::new(key))
}

/// Reads a sealed key without opening it.
pub(crate) fn sealed(path: &Path) -> Result<SealedKey, Failure> {
    SealedKey::from_text(&read(path)?).or_fail(|| format!("cannot use the key `{}`", path.display()))
}

/// A key that was opened.
pub(crate) type Key = Box<dyn Signer>;

/// Opens the key at `path`.
pub(crate) fn open(path: &Path, passphrase: &mut Passphrase) -> Result<Key, Failure> {
    let sealed = sealed(path)?;
    let metadata = fs::metadata(path).or_fail(|| format!("cannot use the key `{}`", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    if mode & 0o077 != 0 {
        return Err(Failure::usage(format!(
            "others can read the key `{}` (mode {:04o})",
            path.display(),
            mode & 0o777
        ))
        .hint(format!("chmod 600 {}", path.display())));
    }
    let passphrase = passphrase.get(&format!("Passphrase for `{}`", path.display()), false)?;
    let what = || format!("cannot open the key `{}`", path.display());
    Ok(Box::new(sealed.open(passphrase.as_bytes()).or_fail(what)?))
}

/// Opens several keys.
pub(crate) fn open_all(paths: &[PathBuf], passphrase: &mut Passphrase) -> Result<Vec<Key>, Failure> {
    paths.iter().map(|path| open(path, passphrase)).collect()
}

/// Reads a public key: a `.pub` file, or the public half of a sealed one.
pub(crate) fn public(path: &Path) -> Result<PublicKey, Failure> {
    let text = read(path)?;
    if text.contains("ENCRYPTED PRIVATE KEY") {
        return Ok(sealed(path)?.public().clone());
    }
    PublicKey::from_pem(&text).or_fail(|| format!("`{}` holds no public key", path.display()))
}

fn read(path: &Path) -> Result<String, Failure> {
    let what = || format!("cannot read `{}`", path.display());
    let bytes = durable::read_if_present(path, MAX_KEY_BYTES)
        .or_fail(what)?
        .ok_or_else(|| Failure::usage(format!("`{}` does not exist", path.display())))?;
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("`{}` is not text", path.display())))
}
