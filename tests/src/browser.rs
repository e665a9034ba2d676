//! A real browser and a real sign-in provider, both programs of npm's that `./test` installs: see `tests/browser/`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

fn node(script: &str) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    assert!(scripts.join("node_modules").exists(), "`./test store` installs what the store's tests need");
    let mut command = as_somebody(Command::new("node").arg(scripts.join(script)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// A command as whoever sits at a machine runs it: a user who administers nothing, though she may read what the test made. Root runs the
/// tests, and would be taken for an administrator.
pub fn as_somebody(command: &Command) -> Command {
    let may = "+dac_override,+dac_read_search";
    let mut somebody = Command::new("setpriv");
    somebody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    somebody.args([format!("--inh-caps={may}"), format!("--ambient-caps={may}")]);
    somebody.arg(command.get_program()).args(command.get_args()).env("HOME", std::env::temp_dir());
    somebody
}

/// A provider of OpenID Connect, with people in it: `claire` teaches at 57001 and 57002, `denis` at 57003, `emma` is a pupil.
#[derive(Debug)]
pub struct Provider {
    child: Child,
    address: String,
}

impl Provider {
    /// Starts it on the loopback.
    pub fn start() -> Self {
        let mut child = node("provider.mjs").spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        // It may say more, and would end if nobody listened.
        std::thread::spawn(move || output.lines().for_each(drop));
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in: {line}"));
        Self { child, address: said["address"].as_str().unwrap().to_owned() }
    }

    /// Who it is: its issuer.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How the deployment names it.
    pub fn policy(&self, rights_key: &Value) -> String {
        let key = toml::Value::try_from(rights_key).unwrap();
        format!(
            "[sign-in]\nissuer = \"{}\"\nclient-id = \"mirabelle\"\nrole-claim = \"role\"\nteachers = [\"ENS\"]\n\
             college-claim = \"etab\"\nsalt = \"{}\"\nrights-key = {key}\n",
            self.address,
            "5a".repeat(32),
        )
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Chromium, which does what it is told.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where pictures of pages go.
    shots: Option<PathBuf>,
}

impl Browser {
    /// Starts it, with a window of the usual size.
    pub fn start() -> Self {
        let mut child = node("driver.mjs").spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let shots = std::env::var_os("MIRABELLE_SHOTS").map(PathBuf::from);
        let mut browser = Self { child, orders, answers, shots };
        browser.tell(&json!({"do": "open"}));
        browser
    }

    /// Tells it something; the answer, or the error it made of it.
    pub fn try_tell(&mut self, order: &Value) -> Result<Value, String> {
        writeln!(self.orders, "{order}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in: {line}"));
        match answer["error"].as_str() {
            None => Ok(answer["ok"].take()),
            Some(error) => Err(format!("{order}: {error} at {}", answer["at"])),
        }
    }

    /// Tells it something that must succeed.
    #[track_caller]
    pub fn tell(&mut self, order: &Value) -> Value {
        match self.try_tell(order) {
            Ok(answer) => answer,
            Err(error) => {
                let text = self.try_tell(&json!({"do": "text", "selector": "body"}));
                panic!("{error}\nthe page says:\n{}", text.unwrap_or_default().as_str().unwrap_or_default());
            }
        }
    }

    /// Goes to an address; the status of the answer.
    #[track_caller]
    pub fn goto(&mut self, url: &str) -> u64 {
        self.tell(&json!({"do": "goto", "url": url})).as_u64().unwrap_or(0)
    }

    /// Presses the button that is called so.
    #[track_caller]
    pub fn button(&mut self, name: &str) {
        self.tell(&json!({"do": "click", "role": "button", "name": name}));
    }

    /// Follows the link that is called so.
    #[track_caller]
    pub fn link(&mut self, name: &str) {
        self.tell(&json!({"do": "click", "role": "link", "name": name}));
    }

    /// Fills the field with this label.
    #[track_caller]
    pub fn fill(&mut self, label: &str, text: &str) {
        self.tell(&json!({"do": "fill", "label": label, "text": text}));
    }

    /// Waits until the page says so.
    #[track_caller]
    pub fn wait(&mut self, text: &str) {
        self.tell(&json!({"do": "wait", "text": text}));
    }

    /// What the page says.
    #[track_caller]
    pub fn text(&mut self) -> String {
        self.tell(&json!({"do": "text"})).as_str().unwrap_or_default().to_owned()
    }

    /// Signs in at the provider's own pages, which are shown.
    #[track_caller]
    pub fn sign_in_as(&mut self, who: &str) {
        self.tell(&json!({"do": "field", "name": "login", "text": who}));
        self.tell(&json!({"do": "field", "name": "password", "text": "any"}));
        self.tell(&json!({"do": "submit"}));
        self.tell(&json!({"do": "submit"}));
        self.tell(&json!({"do": "at", "path": "/"}));
        // What the provider's own pages lack is not ours.
        self.tell(&json!({"do": "faults"}));
    }

    /// The page is as it should be for everybody: axe-core finds nothing, nothing is wider than the window, the console is silent.
    #[track_caller]
    pub fn is_accessible(&mut self, what: &str) {
        let found = self.tell(&json!({"do": "axe"}));
        assert_eq!(found, json!([]), "{what}");
        assert_eq!(self.tell(&json!({"do": "overflow"})), json!([]), "{what} is wider than the window");
        assert_eq!(self.tell(&json!({"do": "faults"})), json!([]), "{what}");
    }

    /// A picture of the page, where somebody wants them.
    pub fn shot(&mut self, name: &str) {
        if let Some(shots) = &self.shots {
            let path = shots.join(format!("{name}.png"));
            self.tell(&json!({"do": "shot", "path": path}));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
