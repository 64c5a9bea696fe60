//! Another load: what `wrk` asks of `lighttpd`.

use std::{
    net::{Ipv4Addr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// Requests per second of `wrk` to `lighttpd`, a connection for each; `None` without the two.
pub(super) fn requests(seconds: u32) -> Result<Option<f64>> {
    let dir = std::env::temp_dir().join("tcpwatch-bench-www");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("index.html"), "it works\n")?;
    let config = dir.join("lighttpd.conf");
    std::fs::write(
        &config,
        format!(
            "server.document-root = \"{}\"\nserver.port = 8080\nserver.bind = \"127.0.0.1\"\n\
             index-file.names = (\"index.html\")\nmimetype.assign = (\".html\" => \"text/html\")\n",
            dir.display()
        ),
    )?;
    let server =
        Command::new("lighttpd").arg("-D").arg("-f").arg(&config).stderr(Stdio::null()).spawn();
    let Ok(mut server) = server else { return Ok(None) };
    while TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).is_err() {
        if let Some(status) = server.try_wait()? {
            bail!("lighttpd ended with {status}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let wrk = Command::new("wrk")
        .args(["-t1", "-c8", &format!("-d{seconds}s"), "-H", "Connection: close"])
        .arg("http://127.0.0.1:8080/")
        .output();
    let _ = server.kill();
    let _ = server.wait();
    let Ok(wrk) = wrk else { return Ok(None) };
    let text = String::from_utf8_lossy(&wrk.stdout);
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let rate = rate.with_context(|| format!("wrk printed no rate: {text}"))?;
    Ok(Some(rate.trim().parse()?))
}
