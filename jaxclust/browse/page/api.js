// Questions to the server, and the state of the groups that this window shows.

const TIMEOUT = 600_000; // milliseconds; the first search restores a checkpoint and compiles

export class Refused extends Error {}

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
  } catch {
    throw new Refused("The server did not answer, so this may not be saved.");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Refused(`The server answered ${response.status}.`);
  }
  if (!response.ok && response.status !== 409) throw new Refused(answer.error);
  return { answer, changed: response.status === 409 };
}

export const post = (path, body) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export const search = (file) =>
  ask("/api/search", { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file });
