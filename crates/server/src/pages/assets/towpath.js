// Keeps a page live. Without it every page reads the same and every form works.
// Events only ring: on each the page is fetched again, and blocks marked `data-live` are replaced by the new ones.
"use strict";
(() => {
  const LOOK_PAUSE_MS = 300; // between two looks: events come in bursts
  const AGES_EVERY_MS = 15000;
  const CONNECT_PAUSE_MS = 2000; // before the first try to connect again; each later one waits twice as long
  const CONNECT_PAUSE_MS_MAX = 60000;

  const byId = (id) => document.getElementById(id);
  const pulse = byId("pulse");
  const news = byId("news");

  function setPulse(text, on) {
    pulse.hidden = false;
    pulse.textContent = text;
    pulse.classList.toggle("off", !on);
  }

  function tell(text) {
    news.firstElementChild.textContent = text;
    news.lastElementChild.href = location.href;
    news.hidden = false;
  }

  // A block that somebody types in or points at stays as it is.
  function isBusy(block) {
    const fields = [...block.querySelectorAll("input:not([type=hidden]), textarea")];
    const focused = block.contains(document.activeElement) && document.activeElement.matches("input, textarea, button");
    return focused || fields.some((field) => field.value !== field.defaultValue);
  }

  function replace(old, fresh) {
    if (old.outerHTML === fresh.outerHTML) return;
    const seenOther = (old.dataset.seen || "") !== (fresh.dataset.seen || "");
    // What a form is about never changes behind the back of whoever looks at it.
    if (isBusy(old) || (seenOther && old.querySelector("form"))) {
      if (seenOther) tell("This page has moved on.");
      return;
    }
    const opened = new Set([...old.querySelectorAll("details")].map((d) => (d.open ? "+" : "-") + d.className));
    const focusHref = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
    const block = document.importNode(fresh, true);
    for (const details of block.querySelectorAll("details")) {
      if (opened.has("-" + details.className)) details.open = false;
      if (opened.has("+" + details.className)) details.open = true;
    }
    old.replaceWith(block);
    if (focusHref) {
      [...block.querySelectorAll("a")].find((a) => a.getAttribute("href") === focusHref)?.focus({ preventScroll: true });
    }
  }

  async function fetchPage(url) {
    const answer = await fetch(url, { headers: { accept: "text/html" }, redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  let looking = false;
  let again = false;
  async function look() {
    if (document.hidden || looking) {
      again = true;
      return;
    }
    looking = true;
    again = false;
    try {
      const page = await fetchPage(location.href.split("#")[0]);
      for (const old of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(old.id);
        if (fresh) replace(old, fresh);
        else if (old.querySelector("form")) tell("This page has moved on.");
      }
      document.title = page.title;
      setPulse("live", true);
    } catch {
      setPulse("not up to date", false);
    }
    setTimeout(() => {
      looking = false;
      if (again) look();
    }, LOOK_PAUSE_MS);
  }

  function ages() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = Date.parse(time.dateTime);
      const seconds = Math.floor((Date.now() - at) / 1000);
      const text =
        seconds < 10 ? "just now"
        : seconds < 60 ? `${seconds} s ago`
        : seconds < 3600 ? `${Math.floor(seconds / 60)} min ago`
        : seconds < 86400 ? `${Math.floor(seconds / 3600)} h ago`
        : seconds < 30 * 86400 ? `${Math.floor(seconds / 86400)} d ago`
        : time.dateTime.slice(0, 10);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // Events of what `place` names, for as long as they are wanted. A browser connects again where a stream broke, and gives up
  // where its answer was none, as a proxy's is while the server restarts: then a new one is made, ever more slowly.
  function connect(place, listeners) {
    let source;
    let timer;
    let pause = CONNECT_PAUSE_MS;
    function open() {
      source = new EventSource(place());
      source.addEventListener("open", () => (pause = CONNECT_PAUSE_MS));
      source.addEventListener("error", () => {
        if (source.readyState !== EventSource.CLOSED || timer === null) return;
        // Many pages lose one server at the same time.
        timer = setTimeout(reopen, pause * (1 + Math.random()));
        pause = Math.min(2 * pause, CONNECT_PAUSE_MS_MAX);
      });
      for (const [name, listener] of Object.entries(listeners)) source.addEventListener(name, listener);
    }
    async function reopen() {
      if (await isLoggedOut()) {
        setPulse("no longer live", false);
        tell("Live updates have ended; you have to log in again.");
      } else if (timer !== null) open();
    }
    function close() {
      clearTimeout(timer);
      timer = null; // for good
      source.close();
    }
    open();
    addEventListener("pagehide", close);
    return close;
  }

  // Whoever is logged out is led away from every page. A server that does not answer says nothing of that.
  async function isLoggedOut() {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "manual" });
      return answer.type === "opaqueredirect";
    } catch {
      return false;
    }
  }

  function listen() {
    const path = document.body.dataset.events;
    if (!path) return;
    let first = true;
    const opened = () => {
      setPulse("live", true);
      if (!first) look(); // something may have happened in between
      first = false;
    };
    const lost = () => {
      first = false;
      setPulse("connecting again", false);
    };
    connect(() => path, { open: opened, error: lost, gate: look, run: look, pool: look, environment: look, all: look });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && again) look();
    });
    setInterval(ages, AGES_EVERY_MS);
  }

  // The log: the server renders lines, also those that are new.
  function followLog() {
    const log = byId("log");
    const button = byId("follow");
    if (!log || log.dataset.over === "true" || log.dataset.end !== "true") return;
    let stick = false;
    let busy = false;
    let more = false;
    button.hidden = false;
    button.addEventListener("click", () => setStick(!stick));
    addEventListener("wheel", (event) => event.deltaY < 0 && setStick(false), { passive: true });

    function setStick(on) {
      stick = on;
      button.setAttribute("aria-pressed", String(on));
      button.textContent = on ? "Following" : "Follow";
      if (on) toEnd();
    }

    function toEnd() {
      window.scrollTo({ top: document.body.scrollHeight });
    }

    async function grow() {
      if (busy) {
        more = true;
        return;
      }
      busy = true;
      more = false;
      // The last line may have been cut when it was shown: it is fetched again.
      const last = log.lastElementChild;
      const from = last ? last.id.slice(1) : "1";
      try {
        const page = await fetchPage(`${log.dataset.url}?attempt=${log.dataset.attempt}&from=${from}`);
        const rows = [...page.querySelectorAll("#log > .row")];
        if (rows.length && last) last.remove();
        log.append(...rows.map((row) => document.importNode(row, true)));
        byId("range").textContent = `lines ${log.firstElementChild?.id.slice(1) ?? 0} to ${log.lastElementChild?.id.slice(1) ?? 0}`;
        if (stick) toEnd();
        if (page.getElementById("log").dataset.end === "false") more = true;
      } catch {
        setPulse("not up to date", false);
      }
      setTimeout(() => {
        busy = false;
        if (more) grow();
      }, LOOK_PAUSE_MS);
    }

    let next = log.dataset.size;
    const close = connect(() => `${log.dataset.url}/follow?attempt=${log.dataset.attempt}&from_byte=${next}`, {
      open: grow, // what came while nobody listened
      log: (event) => {
        next = JSON.parse(event.data).next;
        grow();
      },
      end: () => {
        close();
        button.hidden = true;
        grow();
      },
      error: (event) => {
        if (!event.data) return; // the stream broke, which the server has not said
        close();
        tell(`This log is followed no further: ${JSON.parse(event.data).message}.`);
      },
    });
  }

  // A line that is asked for and is not in this part of the log.
  function findLine() {
    const log = byId("log");
    const line = /^#L(\d+)$/.exec(location.hash);
    if (!log || !line || byId(line[0].slice(1)) || Number(line[1]) > Number(log.dataset.all)) return;
    location.replace(`${log.dataset.url}?attempt=${log.dataset.attempt}&at=${line[1]}${line[0]}`);
  }

  listen();
  findLine();
  addEventListener("hashchange", findLine);
  followLog();
})();
