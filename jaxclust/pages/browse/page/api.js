// @ts-check
// Questions to the server, and the state of the clusters that this window shows.

/**
 * A cluster in a list of them.
 * @typedef {{ group: number, name: string, size: number, confidence: number | null, typical: number[] }} Cluster
 *
 * How thumbnails lie on a sheet.
 * @typedef {{ token: string, columns: number, most: number, gutter: number, height: number, width: number }} Sheet
 *
 * What `/api/state` says.
 * @typedef {{ version: string, run: string, step: number, images: number, shape: number[], originals: boolean,
 *   search: boolean, sorted: string | null, longest: number, parts: number, sheet: Sheet, groups: Cluster[], last: string | null,
 *   news: string[], error?: string }} State
 *
 * The images of a cluster, in an order: rows, thousandths of confidence, and the rows that a person has placed.
 * @typedef {{ rows: number[], confidence: number[], placed: number[] }} Listed
 *
 * An image like another one.
 * @typedef {{ row: number, group: number, confidence: number, placed: boolean, cosine: number }} Neighbour
 *
 * An image alone.
 * @typedef {{ row: number, group: number, confidence: number, placed: boolean, file: string | null,
 *   neighbours: Neighbour[] }} About
 *
 * What a search finds.
 * @typedef {{ group: number, confidence: number, novel: boolean | null, neighbours: Neighbour[] }} Found
 *
 * What a person decides, before the server has completed it.
 * @typedef {{ do: "rename", group: number, name: string } | { do: "merge", groups: number[] }
 *   | { do: "split", group: number, parts: number } | { do: "move", rows: number[], group: number }
 *   | { do: "new", rows: number[], name: string }} Entry
 *
 * What the sorted folder holds.
 * @typedef {{ into: string, links: number, files: number }} Sorted
 */

const TIMEOUT = 600_000; // milliseconds; the first search restores a checkpoint and compiles

export class Refused extends Error {}

/**
 * Where others have changed the clusters, `changed` is true and the answer is the new state.
 * @template T
 * @typedef {{ answer: T, changed: boolean }} Answered
 */

/**
 * @template T
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<Answered<T>>}
 */
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

/**
 * @template T
 * @param {string} path
 * @param {object} body
 * @returns {Promise<Answered<T>>}
 */
export const post = (path, body) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

/**
 * @param {Blob} file
 * @returns {Promise<Answered<Found>>}
 */
export const search = (file) =>
  ask("/api/search", { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file });
