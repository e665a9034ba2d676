//! Every parser of foreign bytes, fed with what was never meant: mutated documents, spliced ones, noise.
//!
//! Promises: nothing panics; no input of 64 KiB takes long or much memory; what parses is written to something that
//! parses to an equal value.
//!
//! ```text
//! ./test fuzz 600                         ten minutes for each target, all at once
//! MIRABELLE_FUZZ_SECONDS=60 cargo test --workspace --test fuzz -- targets
//! tests/fuzz/corpus/<target>/             where mutations begin; what broke something once belongs here too
//! target/fuzz/<target>-<digest>           what broke something now
//! ```
//!
//! Every run begins with the corpus as it is, then mutates it from a fresh seed, which a failure names. No coverage
//! guides it: it runs on stable, without instruments, in every `cargo test` for a second.
#![expect(clippy::unwrap_used, reason = "a test that cannot make its world should stop")]

mod content;
mod documents;
mod drive;
mod fleet;
mod keys;
mod mutate;

use drive::Target;

#[test]
fn root() {
    Target::new("root").run(documents::root);
}

#[test]
fn timestamp() {
    Target::new("timestamp").run(documents::timestamp);
}

#[test]
fn snapshot() {
    Target::new("snapshot").run(documents::snapshot);
}

#[test]
fn targets() {
    Target::new("targets").run(documents::targets);
}

#[test]
fn release() {
    Target::new("release").run(documents::release);
}

#[test]
fn packagers() {
    Target::new("packagers").run(documents::packagers);
}

#[test]
fn deployment() {
    Target::new("deployment").run(documents::deployment);
}

#[test]
fn brake() {
    Target::new("brake").run(documents::brake);
}

#[test]
fn routes() {
    Target::new("routes").run(documents::routes);
}

#[test]
fn json() {
    Target::new("json").run(documents::json);
}

#[test]
fn template() {
    Target::new("template").run(documents::template);
}

#[test]
fn enrolment() {
    Target::new("enrolment").with(documents::enrolment_code()).run(documents::enrolment);
}

#[test]
fn report() {
    Target::new("report").with(fleet::signed_report()).run(fleet::report);
}

#[test]
fn signature_input() {
    Target::new("signature-input").with(fleet::signature_input()).run(fleet::signature);
}

#[test]
fn public_key() {
    Target::new("public-key").run(keys::public_key);
}

#[test]
fn sealed_key() {
    Target::new("sealed-key").with(keys::sealed()).run(keys::sealed_key);
}

#[test]
fn release_parts() {
    Target::new("release-parts").run(documents::release_parts);
}

#[test]
fn delta() {
    let deltas = content::deltas().into_iter();
    deltas.fold(Target::new("delta"), Target::with).run(content::delta);
}

#[test]
fn delta_image() {
    Target::new("delta-image").patiently().run(content::delta_image);
}

#[test]
fn opened_archive() {
    Target::new("opened-archive").patiently().run(content::opened_archive);
}

#[test]
fn bundle_frame() {
    content::bundle().into_iter().fold(Target::new("bundle-frame"), Target::with).run(content::bundle_frame);
}
