//! The Update Framework 1.0.34: its documents, and the client workflow of section 5 without network or clock.
//!
//! [`TrustedMetadata`] is the state machine: it takes the bytes of each document, in the order the specification
//! gives, and either trusts them or says why not. Who fetches the bytes, and where they are kept, is not its business.
//! [`Search`] walks delegations for one target. [`signed`] is the other direction: documents to signed bytes.

mod delegations;
mod metadata;
mod search;
mod signed;
mod trusted;

pub use delegations::{DelegatedRole, Delegations, DelegationsError, SuccinctRoles};
pub use metadata::{
    FileMeta, HashComparison, Hashes, RoleDocument, RoleKeys, RoleName, Root, SPEC_VERSION, Snapshot,
    TargetFile, Targets, Timestamp, metadata_name,
};
pub use search::{MAX_VISITED_ROLES, Search, Step};
pub use signed::{Document, DocumentError, SignError, attach, sign};
pub use trusted::{ClockBehind, MetadataError, TimestampOutcome, TrustedMetadata};
