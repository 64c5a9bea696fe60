//! A headless Chromium, driven through a pipe.
//!
//! Its protocol for developer tools needs no port, no driver and no network that way: a message is JSON up to a
//! zero byte, in on file descriptor 3, out on 4. Also used by `cargo xtask screenshots`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

/// The program; `TCPWATCH_CHROMIUM` names another.
fn program() -> String {
    std::env::var("TCPWATCH_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned())
}

/// Whether there is one.
pub(crate) fn is_installed() -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$0\"", &program()]).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

const FLAGS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
];

/// Descriptors 3 and 4 of the browser are the pipes that are 0 and 1 of the shell.
const WITH_PIPES: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// An answer that takes longer will not come, s.
const PATIENCE: i64 = 60;

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    asked: u64,
    /// What happened, until it is asked for.
    events: Vec<Value>,
}

impl Browser {
    /// Starts one that keeps its files in this directory, which should be its own.
    pub(crate) fn start(profile: &Path) -> Result<Self> {
        let program = program();
        let mut child = Command::new("sh")
            .args(["-c", WITH_PIPES, &program])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let input = child.stdin.take().context("it has no input")?;
        let output = BufReader::new(child.stdout.take().context("it has no output")?);
        let (session, asked, events) = (None, 0, Vec::new());
        let mut browser = Self { child, input, output, session, asked, events };
        browser.begin_anew()?;
        Ok(browser)
    }

    /// A new page, of which nothing is known of what was before.
    pub(crate) fn begin_anew(&mut self) -> Result<()> {
        if self.session.is_some() {
            self.call("Page.close", &json!({}))?;
        }
        self.session = None;
        let target = self.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call("Target.attachToTarget", &attach)?;
        self.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(())
    }

    /// Asks for something and awaits the answer.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.input
            .write_all(&bytes)
            .and_then(|()| self.input.flush())
            .context("ask the browser")?;
        loop {
            let mut answer = self.read()?;
            if answer["id"] != self.asked {
                self.events.push(answer);
            } else if answer["error"].is_null() {
                return Ok(answer["result"].take());
            } else {
                bail!("{method}: {}", answer["error"]);
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        if self.output.buffer().is_empty() {
            let mut fds = [PollFd::new(self.output.get_ref(), PollFlags::IN)];
            let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
            if poll(&mut fds, Some(&patience))? == 0 {
                bail!("the browser has not answered for {PATIENCE} s");
            }
        }
        let mut message = Vec::new();
        self.output.read_until(0, &mut message)?;
        if message.pop() != Some(0) {
            bail!("the browser has ended");
        }
        Ok(serde_json::from_slice(&message)?)
    }

    /// Awaits something that happens.
    pub(crate) fn wait(&mut self, method: &str) -> Result<Value> {
        loop {
            if let Some(place) = self.events.iter().position(|event| event["method"] == method) {
                return Ok(self.events.remove(place)["params"].take());
            }
            let event = self.read()?;
            self.events.push(event);
        }
    }

    /// What happened since the page was opened.
    pub(crate) fn happened(&self, method: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["method"] == method).map(|e| &e["params"]).collect()
    }

    /// Opens a file, and awaits that it is drawn.
    pub(crate) fn open(&mut self, page: &Path) -> Result<()> {
        self.events.clear();
        let url = format!("file://{}", page.display());
        let gone = self.call("Page.navigate", &json!({ "url": url }))?;
        if let Some(error) = gone["errorText"].as_str() {
            bail!("open {url}: {error}");
        }
        self.wait("Page.loadEventFired")?;
        self.frames()
    }

    /// Awaits two frames: what a first has changed is drawn by then.
    pub(crate) fn frames(&mut self) -> Result<()> {
        let frame =
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))";
        self.run(frame).map(drop)
    }

    /// The value of an expression, awaited if it is a promise.
    pub(crate) fn run(&mut self, script: &str) -> Result<Value> {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", &params)?;
        if !result["exceptionDetails"].is_null() {
            bail!("{script}: {}", result["exceptionDetails"]["exception"]["description"]);
        }
        Ok(result["result"]["value"].take())
    }

    /// How large its window is.
    pub(crate) fn size(&mut self, width: u32, height: u32, scale: f64) -> Result<()> {
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", &params).map(drop)
    }

    /// The colours that its user prefers: `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) -> Result<()> {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", &json!({ "features": [feature] })).map(drop)
    }

    /// A picture of a part of the page, as PNG: left, top, width and height; and its scale.
    pub(crate) fn picture(
        &mut self,
        [x, y, width, height]: [f64; 4],
        scale: f64,
    ) -> Result<Vec<u8>> {
        let clip = json!({ "x": x, "y": y, "width": width, "height": height, "scale": scale });
        let params = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", &params)?;
        decode(&picture["data"])
    }

    /// What a printer gets, as PDF.
    pub(crate) fn print(&mut self) -> Result<Vec<u8>> {
        let pages = self.call("Page.printToPDF", &json!({ "printBackground": true }))?;
        decode(&pages["data"])
    }

    /// Where an element is in the window, scrolled into it: left, top, width and height.
    pub(crate) fn place(&mut self, selector: &str) -> Result<[f64; 4]> {
        let script = format!(
            "(() => {{ const node = document.querySelector({selector:?});
               node.scrollIntoView({{ block: 'center', behavior: 'instant' }});
               const box = node.getBoundingClientRect();
               return [box.x, box.y, box.width, box.height]; }})()"
        );
        let place = self.run(&script)?;
        let at = |number: usize| place[number].as_f64().context("it is nowhere");
        Ok([at(0)?, at(1)?, at(2)?, at(3)?])
    }

    /// Something that a pointer does: `mouseMoved`, `mousePressed`, `mouseReleased`.
    pub(crate) fn pointer(&mut self, what: &str, x: f64, y: f64) -> Result<()> {
        let pressed = if what == "mouseMoved" { "none" } else { "left" };
        let params = json!({ "type": what, "x": x, "y": y, "button": pressed, "clickCount": 1 });
        self.call("Input.dispatchMouseEvent", &params).map(drop)
    }

    /// Clicks on an element.
    pub(crate) fn click(&mut self, selector: &str) -> Result<()> {
        let [x, y, width, height] = self.place(selector)?;
        let (x, y) = (x + width / 2.0, y + height / 2.0);
        for what in ["mouseMoved", "mousePressed", "mouseReleased"] {
            self.pointer(what, x, y)?;
        }
        self.frames()
    }

    /// Presses a key, such as `ArrowLeft` or `+`.
    pub(crate) fn key(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let text = match key {
            "Enter" => Some("\r"),
            key if key.chars().count() == 1 => Some(key),
            _ => None,
        };
        let down = if text.is_some() { "keyDown" } else { "rawKeyDown" };
        let mut params = json!({ "type": down, "key": key, "windowsVirtualKeyCode": code });
        if let Some(text) = text {
            params["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", &params)?;
        let up = json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", &up)?;
        self.frames()
    }
}

fn decode(base64: &Value) -> Result<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let bytes = STANDARD.decode(base64.as_str().unwrap_or_default());
    bytes.map_err(|error| anyhow!("decode what the browser sent: {error}"))
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        if self.call("Browser.close", &json!({})).is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
