//! The search for one target through delegations: pre-order, depth first (TUF 1.0.34, 5.6.7).

use std::collections::BTreeSet;

use super::{RoleName, TargetFile, TrustedMetadata};
use crate::TargetPath;

/// How many roles one search may visit (5.6.7.1): delegations can be cyclic and are written by others.
pub const MAX_VISITED_ROLES: usize = 32;

/// What the search wants next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Verify this role against this delegator (itself verified under the third), then ask again.
    Need {
        /// The role to verify.
        role: RoleName,
        /// The role that delegates to it on this path.
        delegator: RoleName,
        /// The role that the delegator was reached through.
        delegators_delegator: RoleName,
    },
    /// The target, and the role that lists it.
    Found(TargetFile, RoleName),
    /// No role that may speak about the path lists it.
    NotFound,
}

#[derive(Clone, Debug)]
struct Visit {
    role: RoleName,
    delegator: RoleName,
    delegators_delegator: RoleName,
}

/// A search under way. It holds no metadata: each step looks at what is trusted by then.
#[derive(Debug)]
pub struct Search {
    path: TargetPath,
    to_visit: Vec<Visit>,
    visited: BTreeSet<RoleName>,
}

impl Search {
    /// Begins at the top-level targets role.
    pub fn new(path: TargetPath) -> Self {
        let root = RoleName::root();
        let top = Visit { role: RoleName::targets(), delegator: root.clone(), delegators_delegator: root };
        Self { path, to_visit: vec![top], visited: BTreeSet::new() }
    }

    /// Goes on as far as `trusted` reaches.
    pub fn step(&mut self, trusted: &TrustedMetadata) -> Step {
        while let Some(visit) = self.to_visit.pop() {
            if self.visited.contains(&visit.role) {
                continue;
            }
            if self.visited.len() >= MAX_VISITED_ROLES {
                return Step::NotFound;
            }
            let Some(targets) = trusted.delegated(&visit.role, &visit.delegator) else {
                let need = Step::Need {
                    role: visit.role.clone(),
                    delegator: visit.delegator.clone(),
                    delegators_delegator: visit.delegators_delegator.clone(),
                };
                self.to_visit.push(visit);
                return need;
            };
            if let Some(file) = targets.targets.get(&self.path) {
                return Step::Found(file.clone(), visit.role);
            }
            self.visited.insert(visit.role.clone());

            let mut children = Vec::new();
            let delegated = targets.delegations.iter().flat_map(|all| all.for_path(&self.path));
            for (role, terminating) in delegated {
                children.push(Visit {
                    role,
                    delegator: visit.role.clone(),
                    delegators_delegator: visit.delegator.clone(),
                });
                if terminating {
                    self.to_visit.clear();
                    break;
                }
            }
            self.to_visit.extend(children.into_iter().rev());
        }
        Step::NotFound
    }
}
