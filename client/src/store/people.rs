//! What a person asks of the node: each request signed, and its answer read.

use std::time::Duration;

use mirabelle_identity::{Action, Assessment, Choices, OrderStatus};
use mirabelle_manifests::SiteId;
use mirabelle_transfer::Sent;
use serde::de::DeserializeOwned;

use super::Store;
use super::person::SignedPerson;
use super::view::Trouble;

/// How long the node may take: it may have to ask the origin.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The most of an answer: the orders of a college.
const MAX_ANSWER_BYTES: u64 = 2 << 20;

impl Store {
    /// What is kept of her.
    pub(super) async fn choices_of(&self, person: &SignedPerson) -> Result<Choices, Trouble> {
        let choices: Choices = self.ask(person, Action::Read, self.college()).await?;
        person.learn(choices.clone());
        Ok(choices)
    }

    /// Something about her choices; the answer is what is kept then.
    pub(super) async fn change_choices(
        &self,
        person: &SignedPerson,
        action: Action,
    ) -> Result<Choices, Trouble> {
        let choices: Choices = self.ask(person, action, self.college()).await?;
        person.learn(choices.clone());
        Ok(choices)
    }

    pub(super) async fn assess(
        &self,
        person: &SignedPerson,
        action: Action,
        college: &SiteId,
    ) -> Result<Assessment, Trouble> {
        self.ask(person, action, college).await
    }

    pub(super) async fn orders_of(
        &self,
        person: &SignedPerson,
        college: &SiteId,
    ) -> Result<Vec<OrderStatus>, Trouble> {
        self.ask(person, Action::Orders, college).await
    }

    /// Something whose answer says no more than that it was done.
    pub(super) async fn tell(
        &self,
        person: &SignedPerson,
        action: Action,
        college: &SiteId,
    ) -> Result<(), Trouble> {
        let _: serde_json::Value = self.ask(person, action, college).await?;
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        person: &SignedPerson,
        action: Action,
        college: &SiteId,
    ) -> Result<T, Trouble> {
        let signed = person.sign(action, college).and_then(|signed| signed.to_bytes());
        let signed = signed.map_err(|error| {
            tracing::error!(%error, "a request could not be signed");
            Trouble::Inside
        })?;
        let node = self.node().ok_or(Trouble::NodeSilent)?;
        let asked = node.exchange("person", &[], Some(Sent::Json(signed)), MAX_ANSWER_BYTES);
        let reply = match tokio::time::timeout(ANSWER_TIME, asked).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                tracing::info!(%error, "the node does not answer a person");
                return Err(Trouble::NodeSilent);
            }
            Err(_) => return Err(Trouble::NodeSilent),
        };
        match reply.status {
            200 | 202 => serde_json::from_slice(&reply.body).map_err(|error| {
                tracing::warn!(%error, "the node's answer cannot be read");
                Trouble::Inside
            }),
            401 => Err(Trouble::SignInOver),
            403 => Err(Trouble::NotHerCollege),
            409 | 503 | 504 => Err(Trouble::LinkCut),
            429 => Err(Trouble::TooManyAttempts),
            status => {
                let said = String::from_utf8_lossy(&reply.body);
                tracing::warn!(status, %said, "the node refuses a request");
                Err(Trouble::Inside)
            }
        }
    }
}
