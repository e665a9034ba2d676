//! What is trusted: TUF roles, releases, packagers, deployment and brake.
//!
//! Pure: bytes and the time come in as arguments, values and reasons go out. Nothing here opens a file, asks the
//! network or reads a clock, so every rule can be tested with a table. The layout of a repository as paths is here
//! too ([`network`]), because names are part of what is signed.
//!
//! The way of a document: bytes → [`tuf::TrustedMetadata`] (who may say so) → [`Catalogue`], [`Deployment`],
//! [`Brake`], [`Packagers`] (what is said) → [`check_approval`] (both bodies) → [`ApprovedRelease`].

pub mod network;
pub mod tuf;

mod approval;
mod brake;
mod catalogue;
mod decide;
mod deployment;
mod digest;
mod enrolment;
mod json;
mod names;
mod packagers;
mod parts;
mod path;
mod release;
mod routes;
mod showcase;
mod template;

pub use approval::{ApprovedRelease, Refusal, check_approval};
pub use brake::{Brake, Pause};
pub use catalogue::{Catalogue, CatalogueEntry, CatalogueError, Custom, Listing};
pub use decide::{
    Action, Asker, Decision, InstalledRelease, Keep, MachineState, Quarantine, Reason, Situation,
    Unresolvable,
};
pub use deployment::{
    Assignment, AssignmentMode, Audience, Between, Clock, ClockError, Closeness, Day, Deployment,
    DeploymentError, Groups, Halt, Holiday, Hours, Machine, Moment, Place, Ring, Rollout, SignIn, Span,
    Timetable, Track, Values,
};
pub use digest::{Digest, DigestError, Hasher};
pub use enrolment::{Enrolment, EnrolmentError, MAX_CODE_BYTES};
pub use jiff::Timestamp as Instant;
pub use json::Json;
pub use names::{
    GroupName, MachineId, MachineUser, MimeType, NameError, PackageName, Platform, RoomName, SiteId,
    SystemPath, Tag, Text, ValueName, Version,
};
pub use packagers::{Packager, PackagerRefusal, Packagers};
pub use parts::ManifestParts;
pub use path::{EntryPath, PathError, PathPattern, TargetPath};
pub use release::{
    Behaviour, Bundle, Check, Description, Detection, Entry, ExitCode, ExitMeaning, Frame, Installer, Kind,
    Launcher, MAX_MANIFEST_BYTES, MAX_RELEASE_BYTES, MAX_SBOM_BYTES, Mode, Node, Object, Permissions,
    PermissionsError, RELEASE_PLACEHOLDER, Relation, Release, ReleaseError, Sbom, Setting, SignedRelease,
    release_target,
};
pub use routes::{DeltaOffer, MAX_DELTA_OFFERS, MAX_ROUTES_BYTES, Routes};
pub use showcase::{
    MAX_ICON_BYTES, MAX_PAGE_BYTES, MAX_SCREENSHOT_BYTES, Media, MediaKind, PageFile, Screenshot, Showcase,
    ShowcaseError, StorePage,
};
pub use template::{TemplateError, fill as fill_template};
