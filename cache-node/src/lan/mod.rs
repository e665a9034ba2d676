//! The college's network: waking its workstations, and being found on it.
//!
//! ```text
//! a workstation's request ─▶ wake_ups.rs ─┐
//!                                         ├─▶ waking.rs ─ one machine after the other ─▶ packet.rs ─▶ wake-to
//! the deployment's hours  ─▶ machines.rs ─┘
//!
//! discovery.rs    answers who looks for a node (mDNS), and looks for neighbours
//! ```

mod discovery;
mod machines;
mod packet;
mod wake_ups;
mod waking;

pub(crate) use self::discovery::{Announcement, Neighbours};
pub(crate) use self::packet::WakeTo;
pub(crate) use self::wake_ups::{MAX_REQUEST_BYTES, WakeUpError};
pub(crate) use self::waking::Waking;
