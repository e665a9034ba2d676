//! An application for every computer of a room, by an hour: what is ordered, whether it will be ready, how far it is.
//!
//! A machine obeys an order as if a teacher had asked at its keyboard: what it may have is decided from the signed deployment, so
//! whoever forges orders gets approved, available software installed, and nothing else.

use std::collections::BTreeMap;

use mirabelle_manifests::{Instant, Keep, MachineId, PackageName, Reason, RoomName, SiteId, Version};
use serde::{Deserialize, Serialize};

use crate::person::Person;
use crate::request::RequestId;

/// What a teacher wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// When it has to be there.
    pub by: Instant,
    /// A release that is kept on purpose, and until when; the newest without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// The package.
    pub package: PackageName,
    /// Where.
    pub room: RoomName,
}

/// An order that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The college of the room.
    pub college: SiteId,
    /// Its number: that of the request that made it.
    pub id: RequestId,
    /// When it was taken.
    pub ordered: Instant,
    /// By whom.
    pub person: Person,
    /// What.
    #[serde(flatten)]
    pub wanted: Wanted,
}

/// Whether an order will be ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assessment {
    /// The answer.
    pub ready: Ready,
    /// What decided about the package for the machines of the room, the last reason last.
    pub reasons: Vec<Reason>,
    /// The version that would come.
    pub version: Option<Version>,
    /// Machines of the room that the node knows.
    pub machines: usize,
    /// Of them, those that said they have too little room for it.
    pub without_room: usize,
    /// Bytes that the college's link still has to carry.
    pub wan_bytes: u64,
    /// When the machines would be woken, if they are off.
    pub wake_at: Option<Instant>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Ready {
    /// In time; expected at this instant.
    Yes {
        /// When.
        at: Instant,
    },
    /// Later than it is wanted.
    Late {
        /// When.
        at: Instant,
    },
    /// Not at all: the last of the reasons says why, or no machine of the room is known.
    No,
}

/// What a machine learns of an order for its room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineOrder {
    /// When it has to be there.
    pub by: Instant,
    /// Its number.
    pub id: RequestId,
    /// What is kept on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// The package.
    pub package: PackageName,
    /// When machines that are off are woken for it: one that came up then goes off again when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Instant>,
}

/// How far a machine is with an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Progress {
    /// It has not heard of it: it is off.
    Waiting,
    /// It heard of it, and is getting it.
    Fetching,
    /// It is there.
    Done {
        /// The version.
        version: Version,
    },
    /// It cannot: for this reason.
    Refused {
        /// Why.
        reason: Reason,
    },
    /// It failed, and is tried again.
    Failed,
}

/// What a machine says about an order: `POST <node>/orders/progress`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineProgress {
    /// The machine.
    pub machine: MachineId,
    /// The order.
    pub order: RequestId,
    /// How far.
    pub progress: Progress,
}

/// An order, and how far it is on each machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStatus {
    /// The order.
    pub order: Order,
    /// What was expected when it was last looked at.
    pub assessment: Option<Assessment>,
    /// Each machine of the room.
    pub machines: BTreeMap<MachineId, Progress>,
}

/// The orders for a college that were given elsewhere, as the origin signs them (`orders/<college>.json`, a [`crate::SignedList`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// Those that were taken back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cancelled: Vec<RequestId>,
    /// The college.
    pub college: SiteId,
    /// When it was made.
    pub issued: Instant,
    /// The orders.
    pub orders: Vec<Order>,
}
