// A browser that does what it is told, a line of JSON at a time, and answers each with one: {"ok": …} or {"error": "…"}.
import readline from "node:readline";
import fs from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
let page;

const does = {
  // A browser of its own, without what others know.
  async open({ width = 1280, height = 900, dark = false, script = true }) {
    const context = await browser.newContext({
      viewport: { width, height }, colorScheme: dark ? "dark" : "light", javaScriptEnabled: script, reducedMotion: "reduce", locale: "fr-FR",
    });
    page = await context.newPage();
    page.setDefaultTimeout(60_000);
    page.faults = [];
    page.on("console", (message) => message.type() === "error" && page.faults.push(`${message.text()} ${message.location().url}`));
    page.on("pageerror", (error) => page.faults.push(String(error)));
  },
  async goto({ url }) { const answer = await page.goto(url); return answer && answer.status(); },
  async click({ role, name, exact = false, nth = 0 }) { await page.getByRole(role, { name, exact }).nth(nth).click(); },
  async fill({ label, text }) { await page.getByLabel(label, { exact: false }).first().fill(text); },
  async select({ label, value }) { await page.getByLabel(label, { exact: true }).selectOption(value); },
  async field({ name, text }) { await page.locator(`[name="${name}"]`).first().fill(text); },
  async submit() { await page.locator("button[type=submit], input[type=submit]").first().click(); },
  async press({ key, times = 1 }) { for (let i = 0; i < times; i++) await page.keyboard.press(key); },
  async wait({ text }) { await page.getByText(text).first().waitFor(); },
  async seen({ selector }) { await page.locator(selector).first().waitFor(); },
  async at({ path }) { await page.waitForURL((url) => url.pathname === path); },
  async text({ selector = "main" }) { return page.locator(selector).first().innerText(); },
  async evaluate({ code }) { return page.evaluate(code); },
  // Tab, until the focus is on what is called so; says how often.
  async tab({ to, most = 120 }) {
    for (let times = 1; times <= most; times++) {
      await page.keyboard.press("Tab");
      const name = await page.evaluate(() => {
        const one = document.activeElement;
        return (one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent || "").trim();
      });
      if (name.startsWith(to)) return times;
    }
    throw new Error(`the focus never came to ${to}`);
  },
  async faults() { const faults = page.faults; page.faults = []; return faults; },
  async shot({ path, full = true }) { await page.screenshot({ path, fullPage: full }); },
  // What is wrong with the page for people who see, hear or move otherwise.
  async axe() {
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
    }));
    return found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
  },
  // What makes the page wider than what it is shown in.
  async overflow() {
    return page.evaluate(() => {
      if (document.documentElement.scrollWidth <= window.innerWidth) return [];
      const wide = [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > window.innerWidth + 1);
      return wide.slice(0, 8).map((one) => one.outerHTML.slice(0, 100));
    });
  },
  async bytes({ url }) {
    let total = 0;
    const count = async (answer) => { try { total += (await answer.body()).length; } catch { /* a redirect has none */ } };
    const counted = [];
    const listen = (answer) => counted.push(count(answer));
    page.on("response", listen);
    await page.goto(url, { waitUntil: "networkidle" });
    page.off("response", listen);
    await Promise.all(counted);
    return total;
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { do: verb, ...how } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ ok: (await does[verb](how)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message || error).split("\n").slice(0, 6).join(" "), at: page?.url() }));
  }
}
await browser.close();
