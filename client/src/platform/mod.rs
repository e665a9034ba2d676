//! What differs between systems: launchers, the link beside `current`, and starting an application while holding a
//! lock for it.

#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub(crate) use unix::{show_active, start_holding, write_launcher};
