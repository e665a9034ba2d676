//! What machines send: signed reports, and the headers of signed requests.

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use mirabelle_fleet::{Event, Nonce, Power, Report, Signed, SignedReport};
use mirabelle_keys::SigningKey;
use mirabelle_manifests::Instant;

const INPUT: HeaderName = HeaderName::from_static("signature-input");
const BODY: &[u8] = b"[]";

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn now() -> Instant {
    Instant::from_second(1_790_000_000).unwrap()
}

fn written() -> Report {
    Report {
        at: now(),
        college: "57001".parse().unwrap(),
        event: Event::Power { power: Power::On },
        machine: Some("b12-03".parse().unwrap()),
        number: 2,
    }
}

pub(crate) fn signed_report() -> Vec<u8> {
    SignedReport::sign(&written(), &key()).unwrap().to_line().unwrap().into_bytes()
}

/// Travels unchanged; and whatever is believed is what was signed.
pub(crate) fn report(bytes: &[u8]) -> bool {
    let Ok(signed) = SignedReport::parse(bytes) else { return false };
    let line = signed.to_line().unwrap();
    assert_eq!(SignedReport::parse(line.as_bytes()).unwrap().text(), signed.text());
    let _ = signed.verify_first();
    if let Ok(report) = signed.verify(&key().public()) {
        assert_eq!(report, written());
    }
    true
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Signed::sign(&key(), &Method::POST, "/reports", &mut headers, BODY, (now(), &Nonce::of(&[7; 16])))
        .unwrap();
    headers
}

pub(crate) fn signature_input() -> Vec<u8> {
    headers().get(INPUT).unwrap().as_bytes().to_vec()
}

/// Another text of the header is refused, or says the very same.
pub(crate) fn signature(bytes: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return false };
    let mut headers = headers();
    headers.insert(INPUT, value);
    let Ok(signed) = Signed::of(&headers) else { return false };
    if signed.verify(&key().public(), &Method::POST, "/reports", &headers, BODY, now()).is_ok() {
        assert_eq!(
            (signed.created, signed.nonce, signed.key),
            (now(), Nonce::of(&[7; 16]), key().public().id())
        );
    }
    true
}
