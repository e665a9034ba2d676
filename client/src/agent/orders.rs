//! What a teacher ordered for this machine's room: asked for as if she had sat here, and told to the node.
//!
//! ```text
//! GET  <node>/orders?room=B12&machine=b12-03   ─▶ what the room was ordered
//! POST <node>/orders/progress                  ◀─ how far this machine is
//! ```
//!
//! Threats: a node that was broken into, or somebody between, may order anything. What comes is decided by `install`, from the signed
//! deployment and catalogue, as for a teacher at the keyboard: approved, available software, and never in a lesson.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use mirabelle_identity::{MachineOrder, MachineProgress, Progress, RequestId};
use mirabelle_manifests::{Instant, PackageName, Reason};
use mirabelle_transfer::Sent;
use tokio_util::sync::CancellationToken;

use super::Agent;

/// The most of what a room was ordered.
const MAX_ORDERS_BYTES: u64 = 1 << 20;
/// How long the node may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// A machine that came up so long before or after it was to be woken was woken for the order.
const CAME_UP: SignedDuration = SignedDuration::from_mins(30);
/// Nobody has touched it for so long: nobody is there.
const NOBODY: Duration = Duration::from_mins(20);

/// How far this machine is with each order, as the node was told.
#[derive(Debug, Default)]
pub(super) struct RoomOrders {
    told: BTreeMap<RequestId, Progress>,
}

impl Agent {
    /// Does what the room was ordered; afterwards a machine that was woken for it goes off again.
    pub(super) async fn follow_orders(&mut self, stop: &CancellationToken) {
        let Some(orders) = self.room_orders().await else { return };
        self.orders.told.retain(|id, _| orders.iter().any(|order| order.id == *id));
        let mut was_woken = false;
        for order in &orders {
            let done_before = matches!(self.orders.told.get(&order.id), Some(Progress::Done { .. }));
            let now = Instant::now();
            let progress = self.standing(order);
            if !matches!(progress, Progress::Waiting) {
                self.tell(order, progress).await;
            } else if self.timetable.lesson(now).is_none() {
                self.tell(order, Progress::Fetching).await;
                self.fulfil_order(order, stop).await;
                if stop.is_cancelled() {
                    return;
                }
                let progress = match self.standing(order) {
                    Progress::Waiting => Progress::Failed,
                    other => other,
                };
                self.tell(order, progress).await;
            }
            let is_done = matches!(self.orders.told.get(&order.id), Some(Progress::Done { .. }));
            was_woken |= !done_before && is_done && self.came_up_for(order);
        }
        let all_told = orders.iter().all(|order| {
            matches!(self.orders.told.get(&order.id), Some(Progress::Done { .. } | Progress::Refused { .. }))
        });
        if was_woken && all_told && self.power.idle().await.is_some_and(|idle| idle >= NOBODY) {
            tracing::info!("the machine was woken for an order of its room, and goes off again");
            self.switch_off(Instant::now()).await;
        }
    }

    async fn room_orders(&mut self) -> Option<Vec<MachineOrder>> {
        let room = self.config.machine.room.clone()?;
        let node = self.node()?;
        let query = [("room", room.as_str()), ("machine", self.config.machine.id.as_str())];
        let asking = node.exchange("orders", &query, None, MAX_ORDERS_BYTES);
        let reply = tokio::time::timeout(ANSWER_TIME, asking).await.ok()?.ok()?;
        // A node of an older version has no orders.
        if reply.status != 200 {
            return None;
        }
        serde_json::from_slice(&reply.body)
            .inspect_err(|error| tracing::warn!(%error, "what the room was ordered cannot be read"))
            .ok()
    }

    /// How this machine stands with an order, by what is decided about its package.
    fn standing(&self, order: &MachineOrder) -> Progress {
        let installed = self.layout.current_generation().ok();
        let installed = installed.and_then(|current| current.packages.get(&order.package).cloned());
        let outlook = self.outlook.as_ref();
        let is_due =
            outlook.is_some_and(|outlook| outlook.due.iter().any(|due| due.package == order.package));
        let decided =
            outlook.and_then(|outlook| outlook.kept.get(&order.package)).and_then(|reasons| reasons.last());
        match (installed, decided) {
            (Some(installed), _) if !is_due && self.keeps(order) => {
                Progress::Done { version: installed.version }
            }
            // Offered, and not asked for yet: that is what the order is for.
            (None, Some(Reason::OnlyOffered | Reason::TeachersOnly { .. }) | None) => Progress::Waiting,
            (None, Some(reason)) if !is_due => Progress::Refused { reason: reason.clone() },
            _ => Progress::Waiting,
        }
    }

    /// True when what the order keeps on purpose is kept.
    fn keeps(&self, order: &MachineOrder) -> bool {
        let Some(keep) = order.keep.as_ref().filter(|keep| keep.until > Instant::now()) else { return true };
        let state = self.layout.read_state().ok();
        state.is_some_and(|state| state.kept.get(&order.package) == Some(keep))
    }

    async fn fulfil_order(&mut self, order: &MachineOrder, stop: &CancellationToken) {
        tracing::info!(order = %order.id, package = %order.package, "the room was ordered this");
        let is_here = |agent: &Self, package: &PackageName| {
            agent.layout.current_generation().is_ok_and(|current| current.packages.contains_key(package))
        };
        if !is_here(self, &order.package) {
            let install = ["install", "--on-behalf-of", "teacher", order.package.as_str()];
            self.command(&install, self.until_hour(), stop).await;
        }
        if let Some(keep) =
            order.keep.as_ref().filter(|_| !self.keeps(order) && is_here(self, &order.package))
        {
            let (sequence, until) = (keep.sequence.to_string(), keep.until.to_string());
            let arguments = [
                "keep",
                "--on-behalf-of",
                "teacher",
                order.package.as_str(),
                "--sequence",
                &sequence,
                "--until",
                &until,
            ];
            self.command(&arguments, self.until_hour(), stop).await;
        }
        self.look_ahead(false, stop).await;
    }

    async fn tell(&mut self, order: &MachineOrder, progress: Progress) {
        if self.orders.told.get(&order.id) == Some(&progress) {
            return;
        }
        let told =
            MachineProgress { machine: self.config.machine.id.clone(), order: order.id.clone(), progress };
        let Some((node, json)) = self.node().zip(serde_json::to_vec(&told).ok()) else { return };
        let telling = node.exchange("orders/progress", &[], Some(Sent::Json(json)), MAX_ORDERS_BYTES);
        match tokio::time::timeout(ANSWER_TIME, telling).await {
            Ok(Ok(reply)) if reply.status == 200 => {
                self.orders.told.insert(told.order, told.progress);
            }
            _ => tracing::info!(order = %order.id, "the node does not hear how far this machine is"),
        }
    }

    /// True when this machine is on because it was woken for the order.
    fn came_up_for(&self, order: &MachineOrder) -> bool {
        order.wake_at.is_some_and(|at| self.awake_since.duration_since(at).abs() <= CAME_UP)
    }
}
