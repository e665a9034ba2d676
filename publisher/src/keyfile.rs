//! Signing keys, wherever they are: sealed files, here, and tokens, in [`token`](crate::token).
//!
//! Key files are made readable by their owner alone, and one that others can read is refused, as `ssh` does.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_keys::{PublicKey, SealedKey, SealingCost, Signer, SigningKey};
use mirabelle_terminal::{Failure, OrFail};

use crate::key_location::KeyLocation;
use crate::passphrase::{Passphrase, refuse_others};
use crate::token::{self, Algorithm};

/// A key file is a few hundred bytes.
const MAX_KEY_BYTES: u64 = 16 << 10;

/// A key that was opened.
pub(crate) type Key = Box<dyn Signer>;

/// Makes a key: a sealed file with its public half beside it, or a key on a token.
pub(crate) fn create(
    location: &KeyLocation,
    algorithm: Algorithm,
    passphrase: &mut Passphrase,
) -> Result<Key, Failure> {
    match location {
        KeyLocation::File(path) if algorithm == Algorithm::Ed25519 => create_file(path, passphrase),
        KeyLocation::File(_) => Err(Failure::usage(format!("a sealed file does not hold a {algorithm} key"))
            .hint("make an Ed25519 key, or make this one on a token: `pkcs11:token=NAME;object=LABEL`")),
        KeyLocation::Token(uri) => Ok(Box::new(token::create(uri, algorithm, passphrase)?)),
    }
}

/// Makes a sealed key at `path`, and its public half beside it.
pub(crate) fn create_file(path: &Path, passphrase: &mut Passphrase) -> Result<Key, Failure> {
    let what = || format!("cannot make the key `{}`", path.display());
    if fs::exists(path).or_fail(what)? {
        return Err(Failure::no(format!("`{}` exists already", path.display())));
    }
    let passphrase = passphrase.sealing(&path.display().to_string())?;
    let key = SigningKey::generate();
    let sealed = SealedKey::seal(&key, passphrase.as_bytes(), SealingCost::STANDARD).or_fail(what)?;
    durable::write_atomically(path, sealed.to_text().as_bytes()).or_fail(what)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).or_fail(what)?;
    let public = key.public().to_pem().unwrap_or_default();
    durable::write_atomically(&path.with_extension("pub"), public.as_bytes()).or_fail(what)?;
    Ok(Box::new(key))
}

/// Opens a key.
pub(crate) fn open(location: &KeyLocation, passphrase: &mut Passphrase) -> Result<Key, Failure> {
    match location {
        KeyLocation::File(path) => open_file(path, passphrase),
        KeyLocation::Token(uri) => Ok(Box::new(token::open(uri, passphrase)?)),
    }
}

/// Opens several keys.
pub(crate) fn open_all(locations: &[KeyLocation], passphrase: &mut Passphrase) -> Result<Vec<Key>, Failure> {
    locations.iter().map(|location| open(location, passphrase)).collect()
}

/// Opens the sealed key at `path`.
pub(crate) fn open_file(path: &Path, passphrase: &mut Passphrase) -> Result<Key, Failure> {
    let what = || format!("cannot use the key `{}`", path.display());
    let sealed = SealedKey::from_text(&read(path)?).or_fail(what)?;
    let mode = fs::metadata(path).or_fail(what)?.permissions().mode();
    refuse_others(mode, "the key", path)?;
    let passphrase = passphrase.opening(&path.display().to_string())?;
    let key =
        sealed.open(passphrase.as_bytes()).or_fail(|| format!("cannot open the key `{}`", path.display()))?;
    Ok(Box::new(key))
}

/// What one guess at the passphrase of a sealed file costs; `None` for anything else.
pub(crate) fn sealed_with(location: &KeyLocation) -> Result<Option<String>, Failure> {
    let KeyLocation::File(path) = location else { return Ok(None) };
    Ok(SealedKey::from_text(&read(path)?).ok().map(|sealed| sealed.cost()))
}

/// Reads a public key: a `.pub` file, or the public half of a sealed key or of one on a token.
pub(crate) fn public(location: &KeyLocation) -> Result<PublicKey, Failure> {
    let path = match location {
        KeyLocation::File(path) => path,
        KeyLocation::Token(uri) => return token::public(uri),
    };
    let text = read(path)?;
    if text.contains("ENCRYPTED PRIVATE KEY") {
        let sealed = SealedKey::from_text(&text);
        return Ok(sealed.or_fail(|| format!("cannot use the key `{}`", path.display()))?.public().clone());
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
