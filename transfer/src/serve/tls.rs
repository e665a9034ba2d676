//! TLS for a server: rustls with ring, TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN (RFC 7301).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::TlsAcceptor;

/// A certificate and its key, ready to serve.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Why a certificate or key cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of certificates is no PEM.
    #[error("the certificates cannot be read as PEM")]
    Certificates(#[source] pem::Error),
    /// It is, but holds none.
    #[error("there is no certificate among the certificates")]
    NoCertificate,
    /// The file of the key holds no private key.
    #[error("the private key cannot be read as PEM")]
    Key(#[source] pem::Error),
    /// The key is of an unknown kind, or another's.
    #[error("the private key does not go with the certificate")]
    Mismatch(#[source] rustls::Error),
}

impl Tls {
    /// Serves with the chain in `certificates`, the server's own first, and the private key in `key` (PKCS#8, PKCS#1 or
    /// SEC1), both PEM.
    ///
    /// # Errors
    /// [`TlsError`] says which of them is wrong.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(TlsError::Certificates)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(TlsError::Mismatch)?
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .map_err(TlsError::Mismatch)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_a_certificate_or_key() {
        assert!(matches!(Tls::from_pem(b"", b""), Err(TlsError::NoCertificate)));
        let broken = b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n";
        assert!(matches!(Tls::from_pem(broken, b""), Err(TlsError::Certificates(_))));
        let nonsense = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Tls::from_pem(nonsense, b""), Err(TlsError::Key(_))));
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(Tls::from_pem(nonsense, key), Err(TlsError::Mismatch(_))));
    }
}
