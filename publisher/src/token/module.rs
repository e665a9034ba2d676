//! The libraries that speak to tokens, and the tokens they see.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::Error as Pkcs11Error;
use cryptoki::slot::{Slot, TokenInfo};

use super::error::TokenError;
use super::uri::{TokenIdentity, TokenUri};

/// The modules that are loaded, by path.
///
/// PKCS#11 has a program initialise a module once (`C_Initialize`), however many keys it then uses; and a module that
/// is never unloaded cannot fall over its own tidying up.
static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// Loads the module at `path`, unless it is loaded.
pub(super) fn load(path: &Path) -> Result<Pkcs11, TokenError> {
    let unusable = |error| TokenError::Module {
        module: path.to_owned(),
        source: match error {
            // The linker's own words, without those around them.
            Pkcs11Error::LibraryLoading(error) => error.into(),
            error => error.into(),
        },
    };
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(path) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(path).map_err(unusable)?;
    module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(unusable)?;
    loaded.insert(path.to_owned(), module.clone());
    Ok(module)
}

/// The one token that `uri` means.
pub(super) fn find(module: &Pkcs11, uri: &TokenUri) -> Result<(Slot, TokenInfo), TokenError> {
    let token = uri.token().to_owned();
    let slots = module.get_slots_with_token().map_err(|error| TokenError::of(&token, error))?;
    // A slot that does not answer holds up nobody who wants another.
    let there = slots.into_iter().filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)));
    let there: Vec<_> = there.filter(|(_, info)| info.token_initialized()).collect();
    let mut meant = there.iter().filter(|(_, info)| uri.describes(&identity(info)));
    match (meant.next(), meant.count()) {
        (Some(one), 0) => Ok(one.clone()),
        (Some(_), more) => Err(TokenError::SeveralTokens { token, count: more + 1 }),
        (None, _) => {
            let there = there.iter().map(|(_, info)| info.label().to_owned()).collect();
            Err(TokenError::NoToken { token, there })
        }
    }
}

fn identity(info: &TokenInfo) -> TokenIdentity<'_> {
    TokenIdentity {
        label: info.label(),
        serial: info.serial_number(),
        model: info.model(),
        manufacturer: info.manufacturer_id(),
    }
}
