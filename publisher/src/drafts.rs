//! Every role is changed in three steps: a draft, signatures gathered over time and machines, and then, when all that
//! belongs together is signed, its place in `roles/`.
//!
//! ```text
//! edit ──▶ drafts/<role>.json ── sign here, or `draft export` ▸ `sign` elsewhere ▸ `draft import` ──▶ roles/<role>.json
//! ```
//!
//! Some changes belong together: when an approver is replaced, root and targets name the new one, and the catalogue must
//! be signed by her; published one by one, every client would refuse the catalogue in between. So drafts move into
//! `roles/` only when the *set* that results is sound ([`RoleSet`]): every document satisfies the keyrings that the set's
//! own root and targets give its role, and a new root those of the old one as well. Until then `publish` goes on with
//! what is there, so that freshness never waits for a signature, and those who hold a role today go on signing.
//!
//! Killed between two of the moves, the drafts are still there, and the next command that signs or publishes moves the
//! rest.

use std::collections::BTreeMap;

use fs_err as fs;
use jiff::SignedDuration;
use mirabelle_keys::{KeyId, Keyring, KeyringError, Signature};
use mirabelle_manifests::network::catalogue_role;
use mirabelle_manifests::tuf::{self, Document, RoleDocument, RoleName, Root, Targets};
use mirabelle_manifests::{Instant, Json};
use mirabelle_terminal::{Failure, OrFail};
use serde::Serialize;

use crate::audit::{Event, Record};
use crate::keyfile::Key;
use crate::repository::Repository;

/// A role's document of either shape.
#[derive(Clone, Debug)]
pub(crate) enum Signed {
    Root(Document<Root>),
    Targets(Document<Targets>),
}

impl Signed {
    /// Parses the document of `role`.
    pub(crate) fn parse(role: &RoleName, bytes: &[u8]) -> Result<Self, tuf::DocumentError> {
        if *role == RoleName::root() {
            Document::parse(bytes).map(Self::Root)
        } else {
            Document::parse(bytes).map(Self::Targets)
        }
    }

    pub(crate) fn signatures(&self) -> &[Signature] {
        match self {
            Self::Root(document) => &document.signatures,
            Self::Targets(document) => &document.signatures,
        }
    }

    pub(crate) fn signed_bytes(&self) -> &[u8] {
        match self {
            Self::Root(document) => document.signed_bytes(),
            Self::Targets(document) => document.signed_bytes(),
        }
    }

    pub(crate) fn json(&self) -> &Json {
        match self {
            Self::Root(document) => document.json(),
            Self::Targets(document) => document.json(),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Root(document) => document.signed.version,
            Self::Targets(document) => document.signed.version,
        }
    }

    pub(crate) fn expires(&self) -> Instant {
        match self {
            Self::Root(document) => document.signed.expires,
            Self::Targets(document) => document.signed.expires,
        }
    }
}

/// Who must sign a document, as one role says.
#[derive(Debug)]
pub(crate) struct Demand {
    /// Whose word it is: `root`, `targets`, or `the root before`.
    pub(crate) by: String,
    pub(crate) keyring: Keyring,
}

/// How far a document's signatures reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    pub(crate) role: String,
    pub(crate) version: u64,
    /// Valid signatures, and how many it takes, where most are missing.
    pub(crate) have: u32,
    pub(crate) need: u32,
    /// Ids of the keys that signed.
    pub(crate) signed: Vec<String>,
    /// Ids of those that still can.
    pub(crate) missing: Vec<String>,
}

impl Progress {
    pub(crate) fn is_complete(&self) -> bool {
        self.have >= self.need
    }
}

/// What became of a document that was edited and signed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It goes out with the next `publish`.
    Complete {
        /// Its version.
        version: u64,
    },
    /// It waits in `drafts/`.
    Waiting(Progress),
}

/// One document for each role: those in `roles/`, with some drafts in their place.
pub(crate) struct RoleSet {
    documents: BTreeMap<RoleName, Signed>,
    /// The root that readers have, when the set holds a newer one.
    root_before: Option<Root>,
}

impl RoleSet {
    fn root(&self) -> Result<&Root, Failure> {
        match self.documents.get(&RoleName::root()) {
            Some(Signed::Root(document)) => Ok(&document.signed),
            _ => Err(Failure::usage("the repository has no root")),
        }
    }

    fn targets_role(&self, role: &RoleName) -> Result<&Targets, Failure> {
        match self.documents.get(role) {
            Some(Signed::Targets(document)) => Ok(&document.signed),
            _ => Err(Failure::usage(format!("the repository has no role `{role}`"))),
        }
    }

    pub(crate) fn document(&self, role: &RoleName) -> Option<&Signed> {
        self.documents.get(role)
    }

    /// Everyone whose threshold `role`'s document must meet.
    pub(crate) fn demands(&self, role: &RoleName) -> Result<Vec<Demand>, Failure> {
        let what = || format!("cannot tell who holds the role `{role}`");
        let root = self.root()?;
        let demand = |by: &str, keyring: Result<Keyring, KeyringError>| {
            Ok(Demand { by: by.to_owned(), keyring: keyring.or_fail(what)? })
        };
        if let Some(keys) = root.roles.get(role) {
            let mut demands = vec![demand("root", keys.keyring(&root.keys))?];
            if *role == RoleName::root()
                && let Some(before) = &self.root_before
                && let Some(keys) = before.roles.get(role)
            {
                demands.push(demand("the root before", keys.keyring(&before.keys))?);
            }
            return Ok(demands);
        }
        let mut demands = Vec::new();
        for delegator in [RoleName::targets(), catalogue_role()] {
            let delegations = self.targets_role(&delegator)?.delegations.as_ref();
            if let Some(keyring) = delegations.and_then(|delegations| delegations.keyring(role)) {
                demands.push(demand(delegator.as_str(), keyring)?);
            }
        }
        if demands.is_empty() {
            return Err(Failure::usage(format!("nobody delegates to `{role}`")));
        }
        if let Some(quorum) = root.quorum_of(role) {
            demands.push(demand("root", quorum.keyring(&root.keys))?);
        }
        Ok(demands)
    }

    /// How far the signatures under `role`'s document reach.
    pub(crate) fn progress(&self, role: &RoleName) -> Result<Progress, Failure> {
        let document = self
            .documents
            .get(role)
            .ok_or_else(|| Failure::usage(format!("the repository has no role `{role}`")))?;
        let (message, signatures) = (document.signed_bytes(), document.signatures());
        let mut progress = Progress {
            role: role.to_string(),
            version: document.version(),
            have: 0,
            need: 0,
            signed: Vec::new(),
            missing: Vec::new(),
        };
        let mut most_missing = None;
        for Demand { keyring, .. } in self.demands(role)? {
            let need = keyring.threshold();
            let mut have = 0;
            let mut counted = Vec::new();
            for (id, key) in keyring.iter() {
                let by_key = signatures
                    .iter()
                    .any(|signature| signature.keyid == *id && key.verifies(message, signature));
                if by_key && !counted.contains(&key) {
                    counted.push(key);
                    have += 1;
                }
                let list = if by_key { &mut progress.signed } else { &mut progress.missing };
                if !list.contains(&id.to_string()) {
                    list.push(id.to_string());
                }
            }
            let missing = need.saturating_sub(have);
            if most_missing.is_none_or(|most| missing > most) {
                most_missing = Some(missing);
                (progress.have, progress.need) = (have.min(need), need);
            }
        }
        Ok(progress)
    }

    /// The first role whose document does not satisfy the set; `None` when readers will accept all of it.
    pub(crate) fn first_unsatisfied(&self) -> Result<Option<(RoleName, String, KeyringError)>, Failure> {
        for (role, document) in &self.documents {
            for Demand { by, keyring } in self.demands(role)? {
                if let Err(error) = keyring.verify(document.signed_bytes(), document.signatures()) {
                    return Ok(Some((role.clone(), by, error)));
                }
            }
        }
        Ok(None)
    }
}

impl Repository {
    /// The documents in `roles/`, with the drafts of `overlay` in their place.
    fn role_set(&self, overlay: &BTreeMap<RoleName, Signed>) -> Result<RoleSet, Failure> {
        let mut documents = BTreeMap::new();
        let mut root_before = None;
        for role in self.signed_roles()? {
            let document = match overlay.get(&role) {
                Some(draft) => {
                    if role == RoleName::root() {
                        root_before = Some(self.role::<Root>(&role)?.signed);
                    }
                    draft.clone()
                }
                None => Signed::parse(&role, &self.role_bytes(&role)?)
                    .or_fail(|| format!("the role `{role}` cannot be read"))?,
            };
            documents.insert(role, document);
        }
        Ok(RoleSet { documents, root_before })
    }

    /// Every draft that waits. One of a version that is signed already is what a kill left behind, and counts for nothing.
    pub(crate) fn drafts(&self) -> Result<BTreeMap<RoleName, Signed>, Failure> {
        let mut drafts = BTreeMap::new();
        for role in self.signed_roles()? {
            let Some(bytes) = self.draft_bytes(&role)? else { continue };
            let draft =
                Signed::parse(&role, &bytes).or_fail(|| format!("the draft of `{role}` cannot be read"))?;
            let current = Signed::parse(&role, &self.role_bytes(&role)?)
                .or_fail(|| format!("the role `{role}` cannot be read"))?;
            if draft.version() > current.version() {
                drafts.insert(role, draft);
            }
        }
        Ok(drafts)
    }

    /// What the repository would be with every draft in place: what a draft's signatures are measured against.
    pub(crate) fn with_drafts(&self) -> Result<RoleSet, Failure> {
        self.role_set(&self.drafts()?)
    }

    /// What `publish` publishes; refused unless every reader will accept it at `now`.
    pub(crate) fn sound_roles(&self, now: Instant) -> Result<RoleSet, Failure> {
        let set = self.role_set(&BTreeMap::new())?;
        if let Some((role, document)) = set.documents.iter().find(|(_, document)| document.expires() <= now) {
            return Err(Failure::trust(format!(
                "`{role}` expired {:.0}, and no reader accepts it",
                document.expires()
            ))
            .hint(format!("its holders renew it: mirabelle-publisher role renew {role} --key …")));
        }
        match set.first_unsatisfied()? {
            None => Ok(set),
            Some((role, by, error)) => Err(error)
                .or_fail(|| format!("`{role}` is not signed as `{by}` demands, and cannot be published")),
        }
    }

    /// Proposes `new` as the next version of a role, signed with those of `keys` that hold it. A draft with the same
    /// content gets the signatures added; a draft with other content is refused, since whoever signs must know all that
    /// she signs.
    pub(crate) fn propose<T: RoleDocument>(
        &self,
        role: &RoleName,
        new: &T,
        keys: &[Key],
        now: Instant,
    ) -> Result<Outcome, Failure> {
        self.draft_and_sign(role, new, keys, now)?;
        self.promote(now)?;
        self.outcome(role)
    }

    /// Proposes the next catalogue: of one role, or of each bin whose releases changed.
    pub(crate) fn propose_catalogue(
        &self,
        catalogue: &Targets,
        keys: &[Key],
        now: Instant,
    ) -> Result<Outcome, Failure> {
        let Some(bins) = self.bins()? else { return self.propose(&catalogue_role(), catalogue, keys, now) };
        let mut changed: BTreeMap<RoleName, Targets> = BTreeMap::new();
        for bin in bins.roles() {
            let mut role = self.role::<Targets>(&bin)?.signed;
            let listed = catalogue.targets.iter().filter(|(path, _)| bins.role_of(path) == bin);
            let listed: BTreeMap<_, _> = listed.map(|(path, file)| (path.clone(), file.clone())).collect();
            if role.targets != listed {
                role.targets = listed;
                changed.insert(bin, role);
            }
        }
        // Before the first is written: one that is refused must not leave the others half done.
        for (bin, role) in &changed {
            self.waiting_draft(bin, &Json::of(role).or_fail(|| format!("cannot sign `{bin}`"))?)?;
        }
        for (bin, role) in &changed {
            self.draft_and_sign(bin, role, keys, now)?;
        }
        self.promote(now)?;
        for bin in changed.keys() {
            let outcome = self.outcome(bin)?;
            if matches!(outcome, Outcome::Waiting(_)) {
                return Ok(outcome);
            }
        }
        self.outcome(&catalogue_role())
    }

    /// As [`Repository::propose`], for a change of several roles that belong together: nothing moves before all of it
    /// is drafted.
    pub(crate) fn draft_and_sign<T: RoleDocument>(
        &self,
        role: &RoleName,
        new: &T,
        keys: &[Key],
        now: Instant,
    ) -> Result<(), Failure> {
        let what = || format!("cannot sign `{role}`");
        let version = self.role::<T>(role)?.signed.version() + 1;
        let mut signed = Json::of(new).or_fail(what)?;
        set(&mut signed, "version", Json::Integer(version.into()));
        set(&mut signed, "expires", Json::String(self.expiry(role, now).to_string()));
        let mut signatures = Vec::new();
        if let Some(draft) = self.waiting_draft(role, &signed)? {
            // One that nobody has signed for a while would be complete when it has nearly expired.
            let old = draft.expires() + SignedDuration::from_hours(24 * 7) < self.expiry(role, now);
            if !(old && draft.signatures().is_empty()) {
                signed = draft.json().clone();
                signatures = draft.signatures().to_vec();
            }
        }
        self.write_draft(role, &signed, &signatures)?;
        self.add_signatures(role, keys, now)
    }

    /// The draft of a role that waits and says what `new` says. One that says something else is refused, unless it only
    /// renews signatures, as a rotation makes it: that is in nobody's way.
    fn waiting_draft(&self, role: &RoleName, new: &Json) -> Result<Option<Signed>, Failure> {
        let Some(draft) = self.drafts()?.remove(role) else { return Ok(None) };
        if content(draft.json()) == content(new) {
            return Ok(Some(draft));
        }
        let current =
            Signed::parse(role, &self.role_bytes(role)?).or_fail(|| format!("cannot read `{role}`"))?;
        if content(draft.json()) == content(current.json()) {
            return Ok(None);
        }
        Err(Failure::no(format!("another change of `{role}` waits for signatures"))
            .hint(format!("sign that one, or drop it: mirabelle-publisher draft discard {role}")))
    }

    /// Signs the draft of a role with those of `keys` that hold it.
    pub(crate) fn add_signatures(&self, role: &RoleName, keys: &[Key], now: Instant) -> Result<(), Failure> {
        let what = || format!("cannot sign `{role}`");
        let set = self.with_drafts()?;
        let demands = self.demands_now_or_then(&set, role)?;
        let draft = set.document(role).ok_or_else(|| no_draft(role))?;
        let fresh = keys
            .iter()
            .filter(|key| holds(&demands, &key.public().id()))
            .map(|key| key.sign(draft.signed_bytes()))
            .collect::<Result<Vec<_>, _>>()
            .or_fail(what)?;
        self.merge(role, draft, &fresh, now)
    }

    /// Adds signatures that were made elsewhere to the draft of a role. Each must be valid, and by a key of the role.
    pub(crate) fn merge(
        &self,
        role: &RoleName,
        draft: &Signed,
        fresh: &[Signature],
        now: Instant,
    ) -> Result<(), Failure> {
        if fresh.is_empty() {
            return Ok(());
        }
        let mut signatures = draft.signatures().to_vec();
        for signature in fresh {
            signatures.retain(|other| other.keyid != signature.keyid);
            signatures.push(signature.clone());
        }
        self.write_draft(role, draft.json(), &signatures)?;
        self.record(
            Record {
                event: Event::Signed,
                document: Some((role.to_string(), draft.version())),
                keys: fresh.iter().map(|signature| signature.keyid.clone()).collect(),
                what: self.travelling_draft(role)?.words(),
            },
            now,
        )
    }

    /// Drops the draft of a role.
    pub(crate) fn drop_draft(&self, role: &RoleName, now: Instant) -> Result<(), Failure> {
        let draft = self.drafts()?.remove(role).ok_or_else(|| no_draft(role))?;
        self.discard_draft(role)?;
        let document = Some((role.to_string(), draft.version()));
        let keys = draft.signatures().iter().map(|signature| signature.keyid.clone()).collect();
        self.record(Record { event: Event::Discarded, document, keys, what: vec![] }, now)
    }

    fn write_draft(&self, role: &RoleName, signed: &Json, signatures: &[Signature]) -> Result<(), Failure> {
        let bytes =
            tuf::attach(signed, signatures).or_fail(|| format!("cannot write the draft of `{role}`"))?;
        self.write(&draft_path(role), &bytes)
    }

    /// Moves into `roles/` what is signed and sound: first each draft by itself, then all together.
    pub(crate) fn promote(&self, now: Instant) -> Result<Vec<RoleName>, Failure> {
        let mut promoted = Vec::new();
        loop {
            let drafts = self.drafts()?;
            let single = drafts.iter().map(|(role, draft)| BTreeMap::from([(role.clone(), draft.clone())]));
            let mut sound = None;
            for candidate in single.chain([self.complete_drafts(&drafts)?]) {
                if !candidate.is_empty() && self.role_set(&candidate)?.first_unsatisfied()?.is_none() {
                    sound = Some(candidate);
                    break;
                }
            }
            let Some(sound) = sound else { return Ok(promoted) };
            for (role, draft) in &sound {
                let bytes = self.draft_bytes(role)?.ok_or_else(|| no_draft(role))?;
                self.write_role(role, draft.version(), &bytes)?;
            }
            for (role, draft) in sound {
                self.discard_draft(&role)?;
                let document = Some((role.to_string(), draft.version()));
                let keys = draft.signatures().iter().map(|signature| signature.keyid.clone()).collect();
                self.record(Record { event: Event::Completed, document, keys, what: vec![] }, now)?;
                promoted.push(role);
            }
        }
    }

    /// The drafts that have all the signatures that the whole of the drafts demands.
    fn complete_drafts(
        &self,
        drafts: &BTreeMap<RoleName, Signed>,
    ) -> Result<BTreeMap<RoleName, Signed>, Failure> {
        let set = self.role_set(drafts)?;
        let mut complete = BTreeMap::new();
        for (role, draft) in drafts {
            if set.progress(role)?.is_complete() {
                complete.insert(role.clone(), draft.clone());
            }
        }
        Ok(complete)
    }

    /// What has become of a role that was proposed.
    pub(crate) fn outcome(&self, role: &RoleName) -> Result<Outcome, Failure> {
        let drafts = self.drafts()?;
        if drafts.contains_key(role) {
            return Ok(Outcome::Waiting(self.role_set(&drafts)?.progress(role)?));
        }
        let current =
            Signed::parse(role, &self.role_bytes(role)?).or_fail(|| format!("cannot read `{role}`"))?;
        Ok(Outcome::Complete { version: current.version() })
    }

    /// Everyone who holds `role` today, or will when the drafts have taken effect: until a rotation is signed by all,
    /// those who hold a role go on with their work.
    pub(crate) fn demands_now_or_then(
        &self,
        then: &RoleSet,
        role: &RoleName,
    ) -> Result<Vec<Demand>, Failure> {
        let mut demands = then.demands(role)?;
        demands.extend(self.role_set(&BTreeMap::new())?.demands(role)?);
        Ok(demands)
    }

    /// Refuses keys that hold none of `roles`: a person who signs with the wrong key should hear of it.
    pub(crate) fn check_holders(&self, roles: &[RoleName], keys: &[Key]) -> Result<(), Failure> {
        let set = self.with_drafts()?;
        for key in keys {
            let id = key.public().id();
            let mut held = false;
            for role in roles {
                held |= holds(&self.demands_now_or_then(&set, role)?, &id);
            }
            if !held {
                let roles: Vec<String> = roles.iter().map(|role| format!("`{role}`")).collect();
                return Err(Failure::trust(format!(
                    "key {} does not hold the role {}",
                    id.short(),
                    roles.join(" or ")
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn draft_bytes(&self, role: &RoleName) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path(&draft_path(role));
        if !fs::exists(&path).or_fail(|| format!("cannot read `{}`", path.display()))? {
            return Ok(None);
        }
        self.read(&draft_path(role)).map(Some)
    }
}

pub(crate) fn no_draft(role: &RoleName) -> Failure {
    Failure::no(format!("no draft of `{role}` waits for signatures"))
        .hint("`mirabelle-publisher status` lists the drafts")
}

pub(crate) fn draft_path(role: &RoleName) -> String {
    format!("drafts/{}.json", role.file_stem())
}

pub(crate) fn role_path(role: &RoleName) -> String {
    format!("roles/{}.json", role.file_stem())
}

fn holds(demands: &[Demand], id: &KeyId) -> bool {
    demands.iter().any(|demand| demand.keyring.get(id).is_some())
}

fn set(document: &mut Json, member: &str, value: Json) {
    if let Json::Object(members) = document {
        members.insert(member.to_owned(), value);
    }
}

/// A document without what changes with every version.
fn content(document: &Json) -> Json {
    let mut content = document.clone();
    if let Json::Object(members) = &mut content {
        members.remove("version");
        members.remove("expires");
    }
    content
}
