//! Wishes: what somebody at the machine asks for is done at once, by a command on her behalf; she may give it up in its middle.

use mirabelle_manifests::{Asker, PackageName};
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::socket::{Answer, Request, Wish};

impl Agent {
    /// Does what somebody at the machine asks for, at once: it is her lesson.
    pub(super) async fn fulfil(&mut self, wish: Wish, stop: &CancellationToken) {
        let Wish { request, asker, answer, progress, cancel } = wish;
        tracing::info!(?request, ?asker, "somebody asks");
        let behalf = word(asker);
        let arguments: Vec<String> = match &request {
            Request::Refresh => {
                self.look_ahead(true, stop).await;
                let due = self.outlook.as_ref().map_or(0, |outlook| outlook.due.len());
                let _ = answer.send(Answer { code: 0, printed: format!("{due} due\n"), said: String::new() });
                return;
            }
            Request::Install { packages } => with("install", behalf, packages),
            Request::Remove { .. } if asker == Asker::Anyone => {
                let _ = answer.send(Answer::refused("only teachers and administrators remove software"));
                return;
            }
            Request::Remove { packages } => with("remove", behalf, packages),
            Request::Keep { package, sequence, until } => {
                let mut arguments = with("keep", behalf, std::slice::from_ref(package));
                arguments.extend(["--sequence".to_owned(), sequence.to_string()]);
                arguments.extend(["--until".to_owned(), until.to_string()]);
                arguments
            }
            Request::Release { package } => with("keep", behalf, std::slice::from_ref(package)),
            Request::OpenStore { .. } => {
                let _ = answer.send(Answer::refused("that is no wish for the agent"));
                return;
            }
        };
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let done = tokio::select! {
            done = self.command_followed(&words, self.until_hour(), Some(&progress), stop) => done,
            () = cancel.cancelled() => None,
        };
        let reply = match done {
            Some(done) => {
                let printed = String::from_utf8_lossy(&done.stdout).into_owned();
                Answer { code: done.code.unwrap_or(5), printed, said: done.stderr }
            }
            None if cancel.is_cancelled() => {
                self.give_up(&request, asker, stop).await;
                Answer::refused("it was given up")
            }
            None => Answer::refused("the agent is stopping: ask again"),
        };
        self.look_ahead(false, stop).await;
        // Whoever asked may be gone.
        let _ = answer.send(reply);
    }

    /// A command was ended in its middle: what it had begun is finished or taken back, and what it was to bring is not wanted
    /// any more.
    async fn give_up(&mut self, request: &Request, asker: Asker, stop: &CancellationToken) {
        self.command(&["resume"], None, stop).await;
        if let Request::Install { packages } = request {
            let here = self.layout.current_generation().ok();
            let is_here =
                |package: &PackageName| here.as_ref().is_some_and(|here| here.packages.contains_key(package));
            let coming: Vec<PackageName> =
                packages.iter().filter(|package| !is_here(package)).cloned().collect();
            if !coming.is_empty() {
                self.undo(&with("remove", word(asker), &coming), stop).await;
            }
        } else if let Request::Keep { package, .. } = request {
            self.undo(&with("keep", word(asker), std::slice::from_ref(package)), stop).await;
        }
    }

    async fn undo(&self, arguments: &[String], stop: &CancellationToken) {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.command(&words, None, stop).await;
    }
}

/// A command on somebody's behalf about packages.
fn with(command: &str, behalf: &str, packages: &[PackageName]) -> Vec<String> {
    let words =
        [command, "--on-behalf-of", behalf].into_iter().chain(packages.iter().map(PackageName::as_str));
    words.map(ToOwned::to_owned).collect()
}

fn word(asker: Asker) -> &'static str {
    match asker {
        Asker::Anyone => "anyone",
        Asker::Teacher => "teacher",
        Asker::Administrator => "administrator",
    }
}
