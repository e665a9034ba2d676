//! A person, without her name.

use std::collections::BTreeSet;
use std::fmt;

use mirabelle_manifests::{Asker, Digest, Instant, SignIn, SiteId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A pseudonym: the same for a person at every college of a deployment, another in every other deployment.
///
/// SHA-256 over the deployment's salt, the provider and its identifier of her. Whoever knows that identifier and the deployment can
/// work it out, and nobody else can lead it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Person(Digest);

impl Person {
    /// The pseudonym of the provider's `subject`.
    pub fn of(sign_in: &SignIn, subject: &str) -> Self {
        // Lengths keep one member from running into the next.
        let text = format!(
            "mirabelle person 1\n{}\n{}:{}\n{}:{subject}",
            sign_in.salt,
            sign_in.issuer.len(),
            sign_in.issuer,
            subject.len(),
        );
        Self(Digest::of(text.as_bytes()))
    }
}

impl std::str::FromStr for Person {
    type Err = mirabelle_manifests::DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of a person who signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Her pseudonym.
    pub person: Person,
    /// True for a teacher.
    pub is_teacher: bool,
    /// Where she teaches.
    pub colleges: BTreeSet<SiteId>,
    /// When the provider, or the origin's list, vouched for her.
    pub since: Instant,
    /// Until when her requests count.
    pub until: Instant,
}

impl Identity {
    /// On whose behalf she asks for software.
    pub fn asker(&self) -> Asker {
        if self.is_teacher { Asker::Teacher } else { Asker::Anyone }
    }

    /// True when she may order for a room of `college`.
    pub fn teaches_at(&self, college: &SiteId) -> bool {
        self.is_teacher && self.colleges.contains(college)
    }
}

/// The values of a claim: a text, or a list of them; a dot in its name leads into an object.
fn values<'a>(claims: &'a Value, name: &str) -> Vec<&'a str> {
    let found =
        claims.get(name).or_else(|| name.split('.').try_fold(claims, |object, part| object.get(part)));
    match found {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// True when the claims make a teacher.
pub(crate) fn is_teacher(sign_in: &SignIn, claims: &Value) -> bool {
    values(claims, &sign_in.role_claim).iter().any(|role| sign_in.teachers.contains(*role))
}

/// The colleges that the claims name. What is no college of ours, under its own name or the provider's, is passed over.
pub(crate) fn colleges(sign_in: &SignIn, claims: &Value) -> BTreeSet<SiteId> {
    let Some(name) = &sign_in.college_claim else { return BTreeSet::new() };
    let ours = |value: &str| sign_in.colleges.get(value).cloned().or_else(|| value.parse().ok());
    values(claims, name).into_iter().filter_map(ours).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sign_in(members: &Value) -> SignIn {
        let mut all = json!({"issuer": "https://c.example", "client-id": "m", "role-claim": "role",
            "teachers": ["ENS"], "salt": "11".repeat(32)});
        all.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_pseudonym_is_the_same_everywhere_in_one_deployment_and_another_in_every_other() {
        let own = sign_in(&json!({}));
        assert_eq!(Person::of(&own, "u1"), Person::of(&own, "u1"));
        for other in [json!({"salt": "22".repeat(32)}), json!({"issuer": "https://d.example"})] {
            assert_ne!(Person::of(&own, "u1"), Person::of(&sign_in(&other), "u1"));
        }
        assert_ne!(Person::of(&own, "u1"), Person::of(&own, "u2"));
        assert!(!Person::of(&own, "u1").to_string().contains("u1"));
    }

    #[test]
    fn claims_are_read_as_the_deployment_says() {
        for (role_claim, claims, teacher) in [
            ("role", json!({"role": "ENS"}), true),
            ("role", json!({"role": ["ELV", "ENS"]}), true),
            ("role", json!({"role": "ELV"}), false),
            ("role", json!({"role": {"ENS": true}}), false),
            ("realm_access.roles", json!({"realm_access": {"roles": ["ENS"]}}), true),
            ("https://c.example/role", json!({"https://c.example/role": "ENS"}), true),
            ("role", json!({}), false),
        ] {
            assert_eq!(
                is_teacher(&sign_in(&json!({"role-claim": role_claim})), &claims),
                teacher,
                "{claims}"
            );
        }
        let mapped = sign_in(&json!({"college-claim": "etab", "colleges": {"0570001A": "57001"}}));
        let found = colleges(&mapped, &json!({"etab": ["0570001A", "57002", "../x"]}));
        assert_eq!(found.iter().map(SiteId::as_str).collect::<Vec<_>>(), ["57001", "57002"]);
        assert!(colleges(&sign_in(&json!({})), &json!({"etab": "57001"})).is_empty());
    }
}
