//! People, as servers know them: what is kept of each under her pseudonym, and the provider that signs them in.
//!
//! ```text
//! <directory>/ab/<pseudonym>.json     a person's choices, replaced as a whole
//! ```
//!
//! The same on a node and on the origin. Nothing else is kept of anybody; one file is all there is to show her, and to erase.

mod provider;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fs_err as fs;
use mirabelle_content::durable;
use mirabelle_identity::{Action, Choice, Choices, Person};
use mirabelle_manifests::Instant;

pub use self::provider::{DiscoveryError, discover};

/// The most of what is kept of a person.
const MAX_CHOICES_BYTES: u64 = 64 << 10;

/// What is kept of people.
#[derive(Debug)]
pub struct ChoicesStore {
    directory: PathBuf,
    /// One change at a time: two of one person's must not overwrite each other.
    changing: Mutex<()>,
}

impl ChoicesStore {
    /// The store in this directory.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), changing: Mutex::default() }
    }

    fn path(&self, person: Person) -> PathBuf {
        let name = person.to_string();
        self.directory.join(name.get(..2).unwrap_or_default()).join(format!("{name}.json"))
    }

    /// What is kept of a person; what cannot be read is as if it were not there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn read(&self, person: Person) -> io::Result<Choices> {
        let kept = durable::read_if_present(&self.path(person), MAX_CHOICES_BYTES)?;
        Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Changes what is kept of a person; returns it as it is then.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn change(&self, person: Person, change: impl FnOnce(&mut Choices)) -> io::Result<Choices> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.read(person)?;
        let mut choices = before.clone();
        change(&mut choices);
        if choices != before {
            durable::write_atomically(&self.path(person), &serde_json::to_vec(&choices)?)?;
        }
        Ok(choices)
    }

    /// Does what a person asks about her own choices at `at`; `None` if it is about something else.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn apply(&self, person: Person, action: &Action, at: Instant) -> io::Result<Option<Choices>> {
        let changed = match action {
            Action::Read => self.read(person),
            Action::Choose { package, wanted } => {
                let choice = Choice { at, wanted: *wanted };
                self.change(person, |choices| choices.choose(package.clone(), choice))
            }
            Action::Follow { follow } => self.change(person, |choices| choices.follow(*follow, at)),
            Action::Forget => self.change(person, |choices| choices.forget(at)),
            _ => return Ok(None),
        };
        changed.map(Some)
    }

    /// Removes all that is kept of a person; says whether there was anything.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn erase(&self, person: Person) -> io::Result<bool> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(person);
        let was_there = path.exists();
        durable::remove_file(&path)?;
        Ok(was_there)
    }

    /// Everybody of whom something is kept, in order.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn people(&self) -> io::Result<Vec<Person>> {
        let mut people = Vec::new();
        if !self.directory.exists() {
            return Ok(people);
        }
        for folder in fs::read_dir(&self.directory)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let name = file?.file_name();
                let pseudonym = name.to_str().and_then(|name| name.strip_suffix(".json"));
                people.extend(pseudonym.and_then(|pseudonym| pseudonym.parse::<Person>().ok()));
            }
        }
        people.sort();
        Ok(people)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_person_is_hers_alone_and_gone_when_it_is_erased() {
        let directory = tempfile::tempdir().unwrap();
        let store = ChoicesStore::new(directory.path());
        let person: Person = "ab".repeat(32).parse().unwrap();
        let other: Person = "cd".repeat(32).parse().unwrap();
        let at = |second| Instant::from_second(second).unwrap();
        let choose = |wanted| Action::Choose { package: "geogebra".parse().unwrap(), wanted };
        store.apply(person, &choose(true), at(10)).unwrap().unwrap();
        store.apply(person, &choose(false), at(5)).unwrap().unwrap();
        assert_eq!(store.read(person).unwrap().wanted().count(), 1, "the later choice counts");
        assert_eq!(store.read(other).unwrap(), Choices::default());
        assert_eq!(store.people().unwrap(), [person]);
        assert!(store.apply(person, &Action::Orders, at(10)).unwrap().is_none());
        store.apply(person, &Action::Forget, at(20)).unwrap();
        assert_eq!(store.read(person).unwrap().wanted().count(), 0);
        assert!(store.erase(person).unwrap() && !store.erase(person).unwrap());
        assert!(store.people().unwrap().is_empty());
    }
}
