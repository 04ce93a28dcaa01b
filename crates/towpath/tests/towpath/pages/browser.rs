//! Headless Chromium, driven through chromedriver: WebDriver is JSON over HTTP, so this is all the client it takes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The browser, as Debian packages it.
const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";
/// Time for any one command, on a machine that compiles meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// Tries to start a driver.
const STARTS: usize = 5;
/// Milliseconds for one look at whether something on a page is so.
const LOOK_MS: u64 = 2_000;
/// How WebDriver calls an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Child,
    base: String,
    agent: ureq::Agent,
    _profile: TempDir,
}

impl Browser {
    /// A browser with a profile of its own; `None` where there is no Chromium.
    pub fn open(test: &str) -> Option<Browser> {
        Browser::open_with(test, &[])
    }

    /// The same, with words for its command line.
    pub fn open_with(test: &str, words: &[&str]) -> Option<Browser> {
        if !Path::new(CHROMIUM).exists() || !Path::new(CHROMEDRIVER).exists() {
            println!("SKIP {test}: there is no {CHROMIUM} with {CHROMEDRIVER} here");
            return None;
        }
        let profile = TempDir::new().unwrap();
        let (driver, port) = start_driver(&profile);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let mut browser =
            Browser { driver, base: format!("http://127.0.0.1:{port}/session"), agent, _profile: profile };
        let begun = browser.ask("", Some(capabilities(browser._profile.path(), words)));
        let session = begun["sessionId"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
        browser.base = format!("{}/{session}", browser.base);
        Some(browser)
    }

    /// One command: `POST` with a body, else `GET`. The answer's `value`, errors included.
    fn ask(&self, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.base);
        let answer = match body {
            Some(body) => self
                .agent
                .post(&url)
                .header("content-type", "application/json")
                .send(body.to_string().as_bytes()),
            None => self.agent.get(&url).call(),
        };
        let text = answer.unwrap().body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["value"].take()
    }

    fn done(&self, path: &str, body: Value) -> Value {
        let value = self.ask(path, Some(body.clone()));
        assert!(value.get("error").is_none(), "{path} {body}: {value}");
        value
    }

    pub fn go(&self, url: &str) {
        self.done("/url", json!({ "url": url }));
    }

    pub fn url(&self) -> String {
        self.ask("/url", None).as_str().unwrap().to_owned()
    }

    /// What a script's `return` says.
    pub fn eval(&self, script: &str) -> Value {
        self.done("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Waits in the page itself until an expression is so, through any pages that are loaded meanwhile.
    pub fn until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0]; const end = Date.now() + {LOOK_MS};
             (function look() {{
               let so = false; try {{ so = Boolean({expression}); }} catch (error) {{ so = false; }}
               if (so || Date.now() > end) done(so); else setTimeout(look, 50);
             }})();"
        );
        let body = json!({ "script": script, "args": [] });
        let begun = Instant::now();
        self.done("/timeouts", json!({ "script": 2 * LOOK_MS }));
        // A page that is left takes the script with it: then the next one is asked.
        while self.ask("/execute/async", Some(body.clone())) != true {
            let late = begun.elapsed() > PATIENCE;
            assert!(!late, "{expression} did not become so at {}:\n{}", self.url(), self.text());
        }
    }

    pub fn text(&self) -> String {
        self.eval("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    fn find(&self, selector: &str) -> String {
        let found = self.done("/element", json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Clicks as a person does: what cannot be seen or reached is an error.
    pub fn click(&self, selector: &str) {
        self.done(&format!("/element/{}/click", self.find(selector)), json!({}));
    }

    pub fn fill(&self, selector: &str, text: &str) {
        self.done(&format!("/element/{}/value", self.find(selector)), json!({ "text": text }));
    }

    /// Shows pages as a person sees them who prefers `scheme`, in a window of another size.
    pub fn look(&self, scheme: &str, (width, height): (u32, u32)) {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media);
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size);
    }

    fn devtools(&self, command: &str, parameters: Value) {
        self.done("/goog/cdp/execute", json!({ "cmd": command, "params": parameters }));
    }

    /// A cookie of the page's site, with its flags.
    pub fn cookie(&self, name: &str) -> Option<Value> {
        let found = self.ask(&format!("/cookie/{name}"), None);
        found.get("error").is_none().then_some(found)
    }

    /// Plants a cookie for the page's site.
    pub fn add_cookie(&self, name: &str, value: &str) {
        self.done("/cookie", json!({ "cookie": { "name": name, "value": value, "path": "/" } }));
    }

    /// Takes every cookie of the page's site away.
    pub fn forget_cookies(&self) {
        self.agent.delete(format!("{}/cookie", self.base)).call().unwrap();
    }

    /// Whether a dialogue of a script is open.
    pub fn has_dialogue(&self) -> bool {
        self.ask("/alert/text", None).get("error").is_none()
    }

    /// What the browser complained of since it was last asked.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.done("/se/log", json!({ "type": "browser" }));
        // Below a warning stands advice about forms.
        let grave = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        let entries = log.as_array().unwrap().iter().filter(grave);
        entries.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Keeps a picture of what is seen, in the folder that `TOWPATH_SCREENSHOTS` names.
    pub fn picture(&self, name: &str) {
        let picture = self.ask("/screenshot", None);
        let bytes = STANDARD.decode(picture.as_str().unwrap()).unwrap();
        assert!(bytes.len() > 2_000, "the picture {name} is empty");
        if let Some(folder) = std::env::var_os("TOWPATH_SCREENSHOTS").map(PathBuf::from) {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session; the driver is ours to end.
        let _ = self.agent.delete(&self.base).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A driver, and on which port it listens. It takes a port that is free for one kind of address, and ends where somebody has that
/// of the other kind.
fn start_driver(profile: &TempDir) -> (Child, u16) {
    let mut started = (0..STARTS).filter_map(|_| {
        let mut command = Command::new(CHROMEDRIVER);
        command.arg("--port=0").env("HOME", profile.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let mut driver = command.stdout(Stdio::piped()).spawn().unwrap();
        let port = port(&mut driver);
        if port.is_none() {
            driver.wait().unwrap();
        }
        Some((driver, port?))
    });
    started.next().expect("chromedriver says on which port it listens")
}

fn port(driver: &mut Child) -> Option<u16> {
    let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let said = lines.map_while(Result::ok).find(|line| line.contains("started successfully on port"))?;
    said.trim_end_matches('.').rsplit(' ').next()?.parse().ok()
}

fn capabilities(profile: &Path, more: &[&str]) -> Value {
    let mut words = vec![
        "--headless=new".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-quic".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--no-first-run".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-component-update".to_owned(),
        "--disable-sync".to_owned(),
        "--hide-scrollbars".to_owned(),
        "--window-size=1280,900".to_owned(),
        format!("--user-data-dir={}", profile.display()),
    ];
    words.extend(more.iter().map(|word| (*word).to_owned()));
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": { "binary": CHROMIUM, "args": words },
        "goog:loggingPrefs": { "browser": "ALL" },
        "unhandledPromptBehavior": "ignore",
    } } })
}
