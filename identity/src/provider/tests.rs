//! Every token that must not sign anybody in, and the one that does.

use openidconnect::core::{CoreEdDsaPrivateSigningKey, CoreJsonWebKey};
use openidconnect::{JsonWebKeyId, PrivateSigningKey};
use serde_json::json;

use super::*;

const NOW: i64 = 1_790_000_000;

/// A provider with a key of its own, and what it signs.
pub(crate) struct Fake {
    key: CoreEdDsaPrivateSigningKey,
    pub(crate) sign_in: SignIn,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let pem = mirabelle_keys::SigningKey::generate().to_unsealed_pem();
        let key = CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, Some(JsonWebKeyId::new("k1".into())));
        let sign_in = json!({"issuer": "https://c.example", "client-id": "mirabelle", "role-claim": "role",
            "teachers": ["ENS"], "college-claim": "etab", "salt": "11".repeat(32), "session-minutes": 60});
        Self { key: key.unwrap(), sign_in: serde_json::from_value(sign_in).unwrap() }
    }

    pub(crate) fn provider(&self) -> Provider {
        let key: CoreJsonWebKey = self.key.as_verification_key();
        Provider {
            authorization_endpoint: "https://c.example/auth".into(),
            end_session_endpoint: None,
            issuer: "https://c.example".into(),
            jwks: json!({"keys": [key]}),
            token_endpoint: "https://c.example/token".into(),
        }
    }

    /// A teacher's claims, but for `changes`; null takes a claim away.
    pub(crate) fn claims(changes: &Value) -> Value {
        let mut claims = json!({"iss": "https://c.example", "sub": "u-7", "aud": "mirabelle", "exp": NOW + 300,
            "iat": NOW, "nonce": "n", "role": ["ENS"], "etab": ["57001"]});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        let message = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "k1"})), part(claims));
        let signature = self.key.sign(&CoreJwsSigningAlgorithm::EdDsa, message.as_bytes()).unwrap();
        format!("{message}.{}", encode(&signature))
    }

    fn verify(&self, token: &str, now: i64) -> Result<Identity, TokenError> {
        self.provider().verify(token, "n", &self.sign_in, at(now))
    }
}

pub(crate) fn at(second: i64) -> Instant {
    Instant::from_second(second).unwrap()
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn part(value: &Value) -> String {
    encode(value.to_string().as_bytes())
}

#[test]
fn a_token_of_this_sign_in_says_who_she_is() {
    let fake = Fake::new();
    let identity = fake.verify(&fake.token(&Fake::claims(&json!({}))), NOW + 5).unwrap();
    assert_eq!(identity.person, Person::of(&fake.sign_in, "u-7"));
    assert!(identity.teaches_at(&"57001".parse().unwrap()));
    assert!(!identity.teaches_at(&"57002".parse().unwrap()));
    assert_eq!(identity.until, at(NOW + 3600));
    let pupil = fake.verify(&fake.token(&Fake::claims(&json!({"role": "ELV"}))), NOW).unwrap();
    assert!(!pupil.is_teacher && !pupil.teaches_at(&"57001".parse().unwrap()));
}

#[test]
fn every_other_token_is_refused() {
    let fake = Fake::new();
    for (changes, now) in [
        (json!({"exp": NOW - 300, "iat": NOW - 600}), NOW),
        (json!({"exp": NOW + 7200, "iat": NOW - 3600}), NOW),
        (json!({"iat": NOW + 600, "exp": NOW + 900}), NOW),
        (json!({"aud": "another"}), NOW),
        (json!({"aud": ["mirabelle", "another"]}), NOW),
        (json!({"azp": "another"}), NOW),
        (json!({"iss": "https://d.example"}), NOW),
        (json!({"nonce": "m"}), NOW),
        (json!({"nonce": null}), NOW),
        (json!({"sub": null}), NOW),
        (json!({"exp": null}), NOW),
    ] {
        let token = fake.token(&Fake::claims(&changes));
        assert!(fake.verify(&token, now).is_err(), "{changes}");
    }
}

#[test]
fn a_token_is_signed_by_the_provider_with_a_key_of_its_own() {
    let fake = Fake::new();
    let claims = Fake::claims(&json!({}));
    let good = fake.token(&claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let payload = message.split_once('.').unwrap().1;
    let other = Fake::new();
    let key = fake.provider().jwks["keys"][0]["x"].as_str().unwrap().to_owned();
    for (what, token) in [
        ("alg none", format!("{}.{payload}.", part(&json!({"alg": "none"})))),
        ("alg none, signed", format!("{}.{payload}.{signature}", part(&json!({"alg": "none"})))),
        (
            "the public key as a secret",
            format!("{}.{payload}.{}", part(&json!({"alg": "HS256"})), encode(key.as_bytes())),
        ),
        ("another's key", other.token(&claims)),
        ("another payload", {
            let forged = part(&Fake::claims(&json!({"sub": "u-8"})));
            format!("{}.{forged}.{signature}", message.split_once('.').unwrap().0)
        }),
        ("an unknown key id", {
            let head = part(&json!({"alg": "EdDSA", "kid": "k2"}));
            format!("{head}.{payload}.{signature}")
        }),
        ("no token", "x.y.z".to_owned()),
        ("nothing", String::new()),
        ("too much", "x".repeat(MAX_TOKEN_BYTES + 1)),
    ] {
        assert!(fake.verify(&token, NOW).is_err(), "{what}");
    }
    assert!(fake.verify(&good, NOW).is_ok());
}

#[test]
fn a_description_is_of_the_provider_that_the_deployment_names() {
    let fake = Fake::new();
    let parse = |change: &dyn Fn(&mut Value)| {
        let mut document = serde_json::to_value(fake.provider()).unwrap();
        change(&mut document);
        Provider::parse(document.to_string().as_bytes(), &fake.sign_in)
    };
    assert!(parse(&|_| ()).is_ok());
    assert!(matches!(
        parse(&|document| document["issuer"] = json!("https://d.example")),
        Err(ProviderError::AnotherIssuer { .. })
    ));
    for address in ["http://c.example/token", "javascript:x", "https://c.example/ token"] {
        let refused = parse(&|document| document["token_endpoint"] = json!(address));
        assert!(matches!(refused, Err(ProviderError::Address(_))), "{address}");
    }
    assert!(matches!(parse(&|document| document["jwks"] = json!({"keys": []})), Err(ProviderError::NoKeys)));
    let large = vec![b' '; MAX_DOCUMENT_BYTES + 1];
    assert!(matches!(Provider::parse(&large, &fake.sign_in), Err(ProviderError::TooLarge(_))));
}
