// BullMQ on Node, driven for the benchmark: the same tasks and lines as ../drive.
// node driver.mjs --modules FOLDER_OF_NODE_MODULES publish --url redis://… --count 10000

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    modules: { type: "string", default: import.meta.dirname },
    url: { type: "string" },
    count: { type: "string", default: "10000" },
    tasks: { type: "string", default: "500" },
    concurrency: { type: "string", default: "100" },
    "wait-ms": { type: "string", default: "0" },
    rate: { type: "string", default: "500" },
    seconds: { type: "string", default: "10" },
  },
});
const task = positionals[0];
const require = createRequire(`${given.modules}/package.json`);
const { Queue, Worker } = require("bullmq");
const installed = (name) => JSON.parse(readFileSync(`${given.modules}/node_modules/${name}/package.json`)).version;

const STALLED = 60_000; // milliseconds without any event done, after which this gives up
const WARM_UP = 200; // events that go ahead of an open loop: connections are opened, scripts loaded, code compiled
const number = (name) => Number(given[name]);
const now = () => performance.now();
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const connection = { url: given.url };

const payload = (i) => ({ leadId: `lead-${String(i).padStart(8, "0")}`, organizationId: "org-1", note: "x".repeat(36) });

let moved = now();
let said = 0;
function progress(done) {
  moved = now();
  if (done % 100 === 0 && moved - said >= 200) {
    said = moved;
    say({ progress: done });
  }
}

/** What the handlers do. An event counts once, however often it is delivered. */
const work = { latencies: [], ended: 0 };

function expect(count, { due = null, warming = false } = {}) {
  return new Promise((finished) => Object.assign(work, { seen: new Set(), count, due, warming, finished }));
}

async function handle(job) {
  const { leadId } = job.data;
  if (work.due) work.latencies.push(now() - work.due(Number(leadId.slice(5))));
  if (number("wait-ms")) await sleep(number("wait-ms"));
  work.seen.add(leadId);
  if (!work.warming) progress(work.seen.size);
  if (work.seen.size === work.count) {
    work.count = -1;
    work.ended = now();
    work.finished();
  }
}

async function publish(count, tasks, done) {
  const queue = new Queue("leads", { connection });
  await queue.waitUntilReady();
  let next = 0;
  let received = 0;
  const publisher = async () => {
    while (next < count) {
      await queue.add("lead", payload(next++));
      done(++received);
    }
  };
  const began = now();
  await Promise.all(Array.from({ length: tasks }, publisher));
  const seconds = (now() - began) / 1000;
  await queue.close();
  return { events: count, seconds };
}

// https://docs.bullmq.io/guide/workers/concurrency: one worker, many jobs at a time, as no job keeps the processor.
function startWorker() {
  const worker = new Worker("leads", handle, { connection, concurrency: number("concurrency") });
  worker.on("error", (error) => console.error(error));
  return worker;
}

async function consume(count, tasks) {
  const finished = expect(count);
  const began = now();
  const worker = startWorker();
  if (tasks) await publish(count, tasks, () => {});
  await finished;
  await worker.close();
  return { events: count, seconds: (work.ended - began) / 1000 };
}

const percentiles = (values) => {
  const ordered = values.sort((a, b) => a - b);
  const ranks = { p50: 0.5, p95: 0.95, p99: 0.99, max: 1 };
  const at = (rank) => Number(ordered[Math.ceil(rank * ordered.length) - 1].toFixed(3));
  return Object.fromEntries(Object.entries(ranks).map(([name, rank]) => [name, at(rank)]));
};

/** An open loop: each event is sent when it is due, whatever happened to the ones before. */
async function latency(rate, seconds) {
  const count = Math.floor(rate * seconds);
  const worker = startWorker();
  const queue = new Queue("leads", { connection });
  const warm = expect(WARM_UP, { warming: true });
  await Promise.all(Array.from({ length: WARM_UP }, (_, i) => queue.add("lead", payload(count + i))));
  await warm;
  const began = now() + 100;
  const finished = expect(count, { due: (i) => began + (i * 1000) / rate });
  const sent = [];
  for (let i = 0; i < count; i++) {
    // Timers tick in milliseconds, which is as long as what is measured: the last of them is spun away.
    for (let early; (early = work.due(i) - now()) > 0; ) {
      await (early > 2 ? sleep(early - 1.5) : new Promise(setImmediate));
    }
    sent.push(queue.add("lead", payload(i)));
  }
  await Promise.all([...sent, finished]);
  await worker.close();
  await queue.close();
  return { events: count, rate, ...percentiles(work.latencies) };
}

const tasks = {
  describe: () => ({
    name: "BullMQ",
    version: `${installed("bullmq")}, ioredis ${installed("ioredis")}`,
    language: "JavaScript",
    settings: "ioredis, concurrency as asked for, all else as it comes: all jobs are kept after they ran",
    guarantees:
      "Acknowledged after the job, which is kept; 1 attempt unless the job asks for more. What a dead worker held " +
      "runs again when its lock of 30 s has expired and a check each 30 s has found that, once at most.",
  }),
  publish: () => publish(number("count"), number("tasks"), progress),
  alone: () => publish(number("count"), 1, progress),
  consume: () => consume(number("count"), 0),
  both: () => consume(number("count"), number("tasks")),
  latency: () => latency(number("rate"), number("seconds")),
};

if (!tasks[task]) throw new Error(`No task ${task}: one of ${Object.keys(tasks)}`);
setInterval(() => {
  if (now() - moved < STALLED) return;
  console.error(`no event was done for ${STALLED / 1000} s: giving up`);
  process.exit(1);
}, 1000).unref();
say(await tasks[task]());
