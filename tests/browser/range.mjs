// What the browser tests stand on: nodes on loopback, a browser, and a list of checks that are told one by one.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const { chromium } = createRequire(join(process.env.TOPS_BROWSER_MODULES, "package.json"))("playwright-core");

/** How long anything may take on a busy machine. */
export const PATIENCE_MS = 60_000;

const dir = mkdtempSync(join(tmpdir(), "tops-browser-"));
const running = new Set();

process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
});

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Asks until the answer is truthy. */
export async function until(what, question, patience = PATIENCE_MS) {
  const end = Date.now() + patience;
  let last;
  for (;;) {
    try {
      last = undefined;
      const answer = await question();
      if (answer) return answer;
    } catch (fault) {
      last = fault;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${patience / 1000} s${last ? ` (${last.message})` : ""}`);
    await sleep(100);
  }
}

export function assert(truth, words) {
  if (!truth) throw new Error(words);
}

export function freePort() {
  return new Promise((done) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

/** A node of the dev network in its own directory. `start` may be called again after `kill`: same port, same directory. */
export class Node {
  constructor(name, port, args, token) {
    Object.assign(this, { name, port, args, token, log: "" });
    this.url = `http://127.0.0.1:${port}`;
  }

  async start() {
    const args = ["--network", "dev", "--data-dir", join(dir, this.name), "--listen", "/ip4/127.0.0.1/tcp/0", "--http", `127.0.0.1:${this.port}`, ...this.args];
    const env = { ...process.env, ...(this.token ? { TOPS_API_TOKEN: this.token } : {}) };
    this.child = spawn(join(process.env.TOPS_BIN_DIR, "tops-node"), args, { env, stdio: ["ignore", "pipe", "pipe"] });
    running.add(this.child);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.on("data", (text) => {
        this.log = (this.log + text).slice(-20_000);
      });
    }
    try {
      await until(`${this.name} answers`, () => {
        assert(this.child.exitCode === null, `${this.name} ended`);
        return this.get("/v1/status");
      });
    } catch (fault) {
      throw new Error(`${fault.message}\n${this.log}`);
    }
    return this;
  }

  async get(path) {
    const response = await fetch(this.url + path, { headers: this.token ? { authorization: `Bearer ${this.token}` } : {} });
    return response.ok ? response.json() : null;
  }

  async kill() {
    const gone = new Promise((done) => this.child.once("exit", done));
    this.child.kill("SIGKILL");
    await gone;
    running.delete(this.child);
  }
}

export const launch = () =>
  chromium.launch({
    executablePath: process.env.TOPS_BROWSER,
    args: [
      "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
      ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
    ],
  });

/** Runs the checks in order; each is told. Returns how many failed. */
export async function check(all) {
  let passed = 0;
  let failed = 0;
  for (const [name, run] of all) {
    const began = Date.now();
    try {
      const words = await run();
      passed += 1;
      console.log(`ok      ${name}${words ? `: ${words}` : ""} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
    } catch (fault) {
      failed += 1;
      console.log(`FAILED  ${name}: ${fault.message}`);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  return failed;
}
