//! What differs between systems: launchers, the link beside `current`, starting an application while holding a lock for
//! it, and whose a file is.

#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub(crate) use unix::{
    DiskSpace, belongs, boot, disk_space, hardware, may_give_away, may_write, mode_and_owner, model, owner,
    scratch, show_active, start_holding, started, system, user_of, write_launcher,
};
