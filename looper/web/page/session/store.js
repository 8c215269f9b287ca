// The sets of this browser, in its own database, so that they outlive a reload. Where it has none they are kept in memory alone.

const STORE = "sets";

const open = () => new Promise((resolve, reject) => {
  const request = indexedDB.open("musicgen-looper", 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

async function act(mode, work) {
  try {
    const database = await open();
    const request = work(database.transaction(STORE, mode).objectStore(STORE));
    return await new Promise((resolve, reject) => {
      request.transaction.oncomplete = () => resolve(request.result);
      request.transaction.onerror = request.transaction.onabort = () => reject(request.transaction.error);
    }).finally(() => database.close());
  } catch {
    return undefined; // a private window, a full disk: the page goes on without
  }
}

export const keep = (set) => act("readwrite", (store) => store.put(set));
export const forget = (id) => act("readwrite", (store) => store.delete(id));
export const kept = async () => ((await act("readonly", (store) => store.getAll())) ?? []).sort((a, b) => b.made - a.made);
