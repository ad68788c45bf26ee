'use strict';

// Everything that comes from the API is put in as text, never as markup.

const PAGE_SIZE = 200;
const REFRESH_MS = 5000;
const COUNT_PAGE = 1000;

const view = document.getElementById('view');
let generation = 0;
let overviewTimer = 0;

function element(name, properties, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === false || value == null) continue;
    if (key === 'class') made.className = value;
    else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

async function api(path) {
  const answer = await fetch('/api' + path, { headers: { Accept: 'application/json' }, cache: 'no-store' });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok && answer.status !== 503) throw new Error(body.message || 'HTTP ' + answer.status);
  return { body, status: answer.status };
}

const code = (text) => element('code', {}, String(text));
const codes = (list) => (list || []).map(code);
const soft = (text) => element('span', { class: 'soft' }, text);
const shown = (value) => (value == null || value === '' ? soft('–') : String(value));
function when(seconds) {
  if (!seconds) return soft('–');
  const moment = new Date(seconds * 1000);
  const text = moment.toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
  return element('time', { datetime: moment.toISOString() }, text);
}
const title = (row) => row.name || row.username || row.custom_id || row.prefix || row.target || row.id;

function matches(route) {
  const parts = [];
  for (const field of ['hosts', 'paths', 'methods', 'snis']) parts.push(...codes(route[field]));
  for (const [name, values] of Object.entries(route.headers || {})) parts.push(code(name + ': ' + values.join(' | ')));
  if (route.expression) parts.push(code(route.expression));
  return parts.length ? parts : [soft('everything')];
}

function scope(plugin) {
  const parts = ['route', 'service', 'consumer', 'consumer_group'].filter((name) => plugin[name]);
  if (!parts.length) return [element('span', { class: 'tag' }, 'global')];
  return parts.map((name) => element('div', {}, soft(name.replace('_', ' ')), ' ', reference(name, plugin[name].id)));
}

const known = new Map();
function reference(kind, id) {
  const text = element('code', {}, id.slice(0, 8));
  text.title = id;
  const paths = { route: 'routes', service: 'services', consumer: 'consumers', consumer_group: 'consumer_groups' };
  const path = '/' + paths[kind] + '/' + encodeURIComponent(id);
  if (!known.has(path)) {
    known.set(path, api(path).then(({ body }) => title(body.consumer_group || body)).catch(() => id));
  }
  known.get(path).then((name) => { text.textContent = name; });
  return text;
}

const onOff = (enabled) =>
  element('span', { class: enabled === false ? 'tag off' : 'tag' }, enabled === false ? 'disabled' : 'enabled');

const target = (service) =>
  code(service.protocol + '://' + service.host + ':' + service.port + (service.path || ''));

function health(upstream) {
  const place = element('span', {}, soft('…'));
  api('/upstreams/' + encodeURIComponent(upstream.id) + '/health').then(({ body }) => {
    const rows = (body.data || []).map((one) => {
      const bad = one.health === 'UNHEALTHY' || one.health === 'DNS_ERROR';
      return element('div', {}, code(one.target), ' ',
        element('span', { class: bad ? 'tag bad' : 'tag' }, (one.health || 'unknown').toLowerCase().replaceAll('_', ' ')));
    });
    place.replaceChildren(...(rows.length ? rows : [soft('no targets')]));
  }).catch((error) => place.replaceChildren(soft(error.message)));
  return place;
}

const LISTS = {
  services: {
    title: 'Services', path: '/services',
    columns: [['Name', title], ['Sends to', target], ['Retries', (row) => shown(row.retries)],
      ['State', (row) => onOff(row.enabled)], ['Changed', (row) => when(row.updated_at)]],
  },
  routes: {
    title: 'Routes', path: '/routes',
    columns: [['Name', title], ['Matches', matches], ['Protocols', (row) => codes(row.protocols)],
      ['Service', (row) => (row.service ? reference('service', row.service.id) : soft('none'))],
      ['Changed', (row) => when(row.updated_at)]],
  },
  upstreams: {
    title: 'Upstreams', path: '/upstreams',
    columns: [['Name', title], ['Algorithm', (row) => shown(row.algorithm)], ['Targets', health]],
  },
  consumers: {
    title: 'Consumers', path: '/consumers',
    columns: [['Username', title], ['Custom ID', (row) => shown(row.custom_id)], ['Tags', (row) => codes(row.tags)],
      ['Made', (row) => when(row.created_at)]],
  },
  plugins: {
    title: 'Plugins', path: '/plugins',
    columns: [['Plugin', (row) => row.name], ['Instance', (row) => shown(row.instance_name)], ['Applies to', scope],
      ['State', (row) => onOff(row.enabled)], ['Protocols', (row) => codes(row.protocols)]],
  },
  certificates: {
    title: 'Certificates', path: '/certificates',
    columns: [['ID', (row) => code(row.id)], ['Server names', (row) => (row.snis && row.snis.length ? codes(row.snis) : soft('none'))],
      ['Made', (row) => when(row.created_at)]],
  },
};

async function count(path) {
  let total = 0;
  let next = path + '?size=' + COUNT_PAGE;
  // Counting pages is honest but slow; a very large collection is shown as "more than".
  for (let pages = 0; next && pages < 20; pages += 1) {
    const { body } = await api(next);
    total += body.data.length;
    next = body.next;
  }
  return next ? total + '+' : String(total);
}

async function overview(mine) {
  const [root, status, ready] = await Promise.all([api('/'), api('/status'), api('/status/ready').catch(() => null)]);
  if (mine !== generation) return;
  const { body: node } = root;
  const server = status.body.server;
  showState(ready);
  document.getElementById('node').textContent =
    node.hostname + ' · sallyport ' + node.sallyport.version + ' · speaks Kong ' + node.version;
  document.getElementById('updated').textContent = 'Updated ' + new Date().toLocaleTimeString() + '.';
  if (!document.getElementById('overview')) {
    const cards = Object.entries(LISTS).map(([name, list]) => {
      const number = element('b', { 'data-count': name }, '…');
      return element('a', { class: 'card', href: '#' + name }, number, element('span', {}, list.title));
    });
    view.replaceChildren(
      element('h2', {}, 'Configuration'),
      element('div', { class: 'cards', id: 'overview' }, cards),
      element('h2', {}, 'Traffic since start'),
      element('div', { class: 'cards', id: 'traffic' }),
      element('h2', {}, 'This node'),
      element('dl', { id: 'facts' }),
    );
    for (const [name, list] of Object.entries(LISTS)) {
      count(list.path).then((number) => {
        const place = document.querySelector('[data-count="' + name + '"]');
        if (place) place.textContent = number;
      }).catch(() => {});
    }
  }
  const card = (value, label) => element('div', { class: 'card' },
    element('b', { class: /^[\d.,]+$/.test(String(value)) ? null : 'words' }, String(value)), element('span', {}, label));
  document.getElementById('traffic').replaceChildren(
    card(server.total_requests.toLocaleString(), 'requests'),
    card(server.connections_active.toLocaleString(), 'open connections'),
    card(server.connections_accepted.toLocaleString(), 'connections accepted'),
    card((status.body.memory.workers_lua_vms[0] || {}).http_allocated_gc || '–', 'memory'),
    card(status.body.configuration.revision ?? '–', 'serving revision'),
  );
  const listeners = node.sallyport.listeners.map((one) =>
    element('div', {}, code(one.address), ' ', soft(one.role.replace('_', ' '))));
  const facts = [
    ['Node', code(node.node_id)],
    ['Listeners', element('div', {}, listeners)],
    ['Store', node.configuration.database],
    ['Router', node.configuration.router_flavor],
    ['Plugins available', element('div', {}, Object.keys(node.plugins.available_on_server).flatMap((name) => [code(name), ' ']))],
  ];
  document.getElementById('facts').replaceChildren(
    ...facts.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
}

function showState(ready) {
  const badge = document.getElementById('state');
  const good = ready && ready.status === 200;
  badge.className = 'badge ' + (good ? 'good' : 'bad');
  const text = good ? 'ready' : ((ready && ready.body.message) || 'not reachable');
  if (badge.textContent !== text) badge.textContent = text;
}

async function list(name, mine) {
  const { title: heading, path, columns } = LISTS[name];
  const body = element('tbody');
  const table = element('table', {}, element('caption', {}, heading),
    element('thead', {}, element('tr', {}, columns.map(([label]) => element('th', { scope: 'col' }, label)))), body);
  const search = element('input', { type: 'search', placeholder: 'Filter what is loaded', 'aria-label': 'Filter ' + heading.toLowerCase() });
  search.addEventListener('input', () => {
    const wanted = search.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  const more = element('button', { type: 'button', hidden: '' }, 'Load more');
  const holder = element('div', { class: 'scroll' }, table);
  view.replaceChildren(element('div', { class: 'bar' }, element('h2', {}, heading), search), holder, more);
  let next = path + '?size=' + PAGE_SIZE;
  const load = async () => {
    const { body: page } = await api(next);
    if (mine !== generation) return;
    for (const row of page.data) {
      body.append(element('tr', {}, columns.map(([, show], index) =>
        element(index === 0 ? 'th' : 'td', index === 0 ? { scope: 'row' } : {}, show(row)))));
    }
    next = page.next;
    more.hidden = !next;
    if (!body.rows.length) holder.replaceChildren(element('p', { class: 'empty' }, 'There are no ' + heading.toLowerCase() + ' yet.'));
  };
  more.addEventListener('click', () => load().catch(fail));
  await load();
}

function fail(error) {
  showState(null);
  const message = element('p', { class: 'error', role: 'alert' }, 'The Admin API did not answer: ' + error.message);
  const old = view.querySelector('.error');
  if (old) old.replaceWith(message); else view.prepend(message);
}

function show(moveFocus) {
  const name = location.hash.slice(1);
  const mine = (generation += 1);
  clearInterval(overviewTimer);
  known.clear();
  for (const link of document.querySelectorAll('#sections a')) {
    if ((link.hash || '#') === '#' + (LISTS[name] ? name : '')) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = (LISTS[name] ? LISTS[name].title + ' · ' : '') + 'Sallyport';
  if (moveFocus) document.getElementById('main').focus();
  if (LISTS[name]) {
    list(name, mine).catch(fail);
    return;
  }
  view.replaceChildren();
  overview(mine).catch(fail);
  overviewTimer = setInterval(() => { if (!document.hidden) overview(mine).catch(fail); }, REFRESH_MS);
}

document.getElementById('sections').append(
  ...[['', 'Overview'], ...Object.entries(LISTS).map(([name, { title: text }]) => [name, text])].map(([name, text]) =>
    element('li', {}, element('a', { href: '#' + name }, text))));
addEventListener('hashchange', () => show(true));
show(false);
if (location.hash.length > 1) {
  api('/').then(({ body }) => {
    document.getElementById('node').textContent =
      body.hostname + ' · sallyport ' + body.sallyport.version + ' · speaks Kong ' + body.version;
  }).catch(fail);
  api('/status/ready').then(showState).catch(() => showState(null));
}
