//! Public keys, as JSON and as PEM, and sealed keys.

use mirabelle_keys::{PublicKey, SealedKey, SealingCost, Signature, SigningKey};

const PASSPHRASE: &[u8] = b"mirabelle";

pub(crate) fn public_key(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let _ = PublicKey::from_p256(bytes);
    if let Some(bytes) = bytes.first_chunk() {
        let _ = PublicKey::from_ed25519(bytes);
    }
    let key: PublicKey = match (serde_json::from_slice(bytes), PublicKey::from_pem(&text)) {
        (Ok(key), _) | (_, Ok(key)) => key,
        _ => return false,
    };
    let again: PublicKey = serde_json::from_value(serde_json::to_value(&key).unwrap()).unwrap();
    assert_eq!(again, key);
    assert_eq!(again.id(), key.id());
    let pem = key.to_pem();
    assert_eq!(pem.is_none(), key.is_unsupported());
    if !key.scheme().starts_with("rsa")
        && let Some(pem) = pem
    {
        assert_eq!(PublicKey::from_pem(&pem).unwrap(), key);
    }
    for length in [0, 1, 32, 64, 70, 256] {
        let signature =
            Signature { keyid: key.id(), bytes: bytes.iter().copied().cycle().take(length).collect() };
        assert!(!key.verifies(b"message", &signature));
    }
    true
}

/// A key to begin with: nothing secret is kept in the corpus.
pub(crate) fn sealed() -> Vec<u8> {
    let key = SigningKey::from_seed(&[7; 32]);
    SealedKey::seal(&key, PASSPHRASE, SealingCost::dangerously_cheap()).unwrap().to_text().into_bytes()
}

pub(crate) fn sealed_key(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(sealed) = SealedKey::from_text(&text) else { return false };
    let again = SealedKey::from_text(&sealed.to_text()).unwrap();
    assert_eq!(again.public(), sealed.public());
    // Whatever it opens to is the key that is named beside it.
    if let Ok(key) = sealed.open(PASSPHRASE) {
        assert_eq!(key.public(), *sealed.public());
    }
    true
}
