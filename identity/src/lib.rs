//! Who a person is, and what she may ask for: one sign-in for every college, and no name anywhere but on her own screen.
//!
//! ```text
//!   provider ── ID token, whose nonce commits to a key of this sign-in ──▶ workstation
//!                                                                            │ signs each request with that key
//!      node, origin ◀── Signed request { proof: token or code, request } ────┘
//!        each verifies by itself: the token with the provider's keys, then the request with the key the token commits to
//! ```
//!
//! Pure, as `manifests` is: bytes and the time come in. What a teacher may do is said by the signed deployment
//! ([`mirabelle_manifests::SignIn`]) and by the provider's claims; a workstation or node only passes on what it cannot make.
//!
//! Threats and the defence for each:
//! - *A token of another client, provider, time or sign-in; one without signature*: [`Provider::verify`], each with its test.
//! - *A token that was overheard on the college's network, or is kept by a node that was broken into*: it is worth nothing without
//!   the key that its nonce commits to, which never leaves the workstation's memory ([`SessionKey`]).
//! - *A request sent again*: it names its time and a number of its own, and does the same thing twice ([`Request`]).
//! - *A list of rights made up by a node*: the origin signs it with a key that the deployment names ([`Rights`]).
//! - *Whoever reads such a list, or what is kept of a person, wants to know who she is*: there are pseudonyms only ([`Person`]).

mod choices;
mod order;
mod person;
mod provider;
mod request;
mod rights;

pub use choices::{Choice, Choices, Follow};
pub use order::{
    Assessment, MachineOrder, MachineProgress, Order, OrderStatus, Orders, Progress, Ready, Wanted,
};
pub use person::{Identity, Person};
pub use provider::{Provider, ProviderError, TokenError, name_in};
pub use request::{
    Action, MAX_REQUEST_BYTES, OfflineCode, Proof, Request, RequestError, RequestId, SessionKey,
    SignedRequest,
};
pub use rights::{Right, Rights, RightsError, SignedList};
