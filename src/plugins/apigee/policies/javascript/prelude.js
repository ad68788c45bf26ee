// What scripts see of the gateway: made once for each engine, over the functions of `host`.
(function (host, properties) {
  'use strict';

  var MESSAGES = ['message', 'request', 'response', 'error'];
  var pending = [];   // exchanges of this run whose callback has not been called
  var known = {};     // objects that this run has put into variables
  var session = {};

  // ---- objects that outlive a run, as text ----

  function packed(key, value) {
    return value instanceof Exchange ? { 'javascript.exchange': value.id } : value;
  }

  function unpacked(key, value) {
    if (value !== null && typeof value === 'object' && typeof value['javascript.exchange'] === 'number') {
      return new Exchange(value['javascript.exchange']);
    }
    return value;
  }

  // ---- headers and parameters ----

  function several(values) {
    var all = Object.create(String.prototype);
    values.forEach(function (value, index) {
      Object.defineProperty(all, index, { value: value, enumerable: true });
    });
    function first() { return values[0]; }
    ['toString', 'valueOf', 'toJSON'].forEach(function (name) {
      Object.defineProperty(all, name, { value: first });
    });
    Object.defineProperty(all, 'length', { value: values.length });
    return all;
  }

  function fields(message, one, many) {
    function variable(name) { return message + '.' + one + '.' + name; }
    function names() { return host.list(message + '.' + many + '.names'); }
    function read(name) {
      var values = host.list(variable(name) + '.values');
      if (values.length > 1) { return several(values); }
      return values.length === 1 ? values[0] : undefined;
    }
    return new Proxy({}, {
      get: function (target, name) {
        if (typeof name !== 'string') { return undefined; }
        if (name === 'length') { return names().length; }
        var value = read(name);
        if (value === undefined && name === 'toString') {
          return function () { return '[object Object]'; };
        }
        return value;
      },
      set: function (target, name, value) {
        host.remove(variable(String(name)));
        if (value !== null && value !== undefined) { host.set(variable(String(name)), String(value)); }
        return true;
      },
      has: function (target, name) { return typeof name === 'string' && read(name) !== undefined; },
      deleteProperty: function (target, name) { host.remove(variable(String(name))); return true; },
      ownKeys: function () { return Array.from(new Set(names())); },
      getOwnPropertyDescriptor: function (target, name) {
        var value = typeof name === 'string' ? read(name) : undefined;
        if (value === undefined) { return undefined; }
        return { value: value, enumerable: true, configurable: true, writable: true };
      }
    });
  }

  // ---- messages ----

  function Message(name) {
    this.headers = fields(name, 'header', 'headers');
    this.queryParams = fields(name, 'queryparam', 'queryparams');
    this.formParams = fields(name, 'formparam', 'formparams');
    var status = {};
    variable(status, 'code', name + '.status.code');
    variable(status, 'message', name + '.reason.phrase');
    status.toString = function () { return String(status.code); };
    variable(this, 'method', name + '.verb');
    variable(this, 'verb', name + '.verb');
    variable(this, 'path', name + '.path');
    variable(this, 'querystring', name + '.querystring');
    variable(this, 'content', name + '.content');
    variable(this, 'body', name + '.content');
    Object.defineProperty(this, 'url', {
      get: function () { return host.get(name === 'request' ? 'request.uri' : name + '.uri'); },
      set: function (url) { host.set('target.url', String(url)); }
    });
    Object.defineProperty(this, 'status', {
      get: function () { return status; },
      set: function (code) { status.code = code; }
    });
  }

  function variable(object, property, name) {
    Object.defineProperty(object, property, {
      enumerable: true,
      get: function () { return host.get(name); },
      set: function (value) { host.set(name, value === null || value === undefined ? '' : text(value)); }
    });
  }

  function text(value) {
    if (value !== null && typeof value === 'object' && !(Object.getPrototypeOf(value) === String.prototype)) {
      return JSON.stringify(value);
    }
    return String(value);
  }

  // A tree whose changes are written back where it was read.
  function live(root, write) {
    var proxies = new Map();
    function wrap(value) {
      if (value === null || typeof value !== 'object') { return value; }
      if (!proxies.has(value)) {
        proxies.set(value, new Proxy(value, {
          get: function (target, name) { return wrap(target[name]); },
          set: function (target, name, inner) { target[name] = inner; write(JSON.stringify(root)); return true; },
          deleteProperty: function (target, name) { delete target[name]; write(JSON.stringify(root)); return true; }
        }));
      }
      return proxies.get(value);
    }
    return wrap(root);
  }

  function owner(content) {
    for (var index = 0; index < MESSAGES.length; index += 1) {
      if (host.get(MESSAGES[index] + '.content') === content) { return MESSAGES[index] + '.content'; }
    }
    return null;
  }

  Object.defineProperty(String.prototype, 'asJSON', {
    configurable: true,
    get: function () {
      var content = String(this);
      var place = owner(content);
      var tree = JSON.parse(content);
      return place === null ? tree : live(tree, function (changed) { host.set(place, changed); });
    }
  });
  Object.defineProperty(String.prototype, 'asForm', {
    configurable: true,
    get: function () {
      var form = {};
      String(this).split('&').filter(Boolean).forEach(function (pair) {
        var at = pair.indexOf('=');
        var parts = at < 0 ? [pair, ''] : [pair.slice(0, at), pair.slice(at + 1)];
        var decoded = parts.map(function (part) { return decodeURIComponent(part.replace(/\+/g, ' ')); });
        form[decoded[0]] = decoded[1];
      });
      return form;
    }
  });
  Object.defineProperty(String.prototype, 'asXML', {
    configurable: true,
    get: function () { throw new Error('asXML is not supported: this engine has no XML literals (E4X), use ExtractVariables or XMLToJSON'); }
  });

  // ---- calls to other servers ----

  function Request(url, method, headers, body) {
    this.url = url;
    this.method = method || 'GET';
    this.headers = headers || {};
    this.body = body;
  }

  function Exchange(id) { this.id = id; }

  Exchange.prototype.isComplete = function () { return host.outcome(this.id) !== null; };
  Exchange.prototype.waitForComplete = function (milliseconds) {
    host.wait(this.id, milliseconds === undefined ? -1 : Number(milliseconds));
    call(this);
  };
  Exchange.prototype.isSuccess = function () {
    var outcome = host.outcome(this.id);
    return outcome !== null && outcome.error === undefined;
  };
  Exchange.prototype.isError = function () {
    var outcome = host.outcome(this.id);
    return outcome !== null && outcome.error !== undefined;
  };
  Exchange.prototype.getError = function () {
    var outcome = host.outcome(this.id);
    return outcome === null || outcome.error === undefined ? null : outcome.error;
  };
  Exchange.prototype.getResponse = function () {
    var outcome = host.outcome(this.id);
    return outcome === null || outcome.error !== undefined ? null : response_of(outcome);
  };

  function response_of(outcome) {
    var headers = {};
    outcome.headers.forEach(function (field) {
      var name = field[0];
      headers[name] = headers[name] === undefined ? field[1] : headers[name] + ', ' + field[1];
    });
    var insensitive = new Proxy(headers, {
      get: function (target, name) {
        return typeof name === 'string' ? target[name.toLowerCase()] : target[name];
      },
      has: function (target, name) { return String(name).toLowerCase() in target; }
    });
    return {
      status: { code: outcome.status, message: outcome.reason, toString: function () { return String(outcome.status); } },
      headers: insensitive,
      content: outcome.content,
      body: outcome.content
    };
  }

  function send(request, callback) {
    var ask = typeof request === 'string' ? new Request(request) : request;
    var headers = [];
    Object.keys(ask.headers || {}).forEach(function (name) { headers.push([name, String(ask.headers[name])]); });
    var body = ask.body === undefined || ask.body === null ? '' : text(ask.body);
    var exchange = new Exchange(host.send(String(ask.url), String(ask.method || 'GET'), headers, body));
    if (typeof callback === 'function') {
      exchange.callback = callback;
      pending.push(exchange);
    }
    return exchange;
  }

  function call(exchange) {
    var callback = exchange.callback;
    if (callback === undefined || !exchange.isComplete()) { return; }
    exchange.callback = undefined;
    callback(exchange.getResponse(), exchange.getError());
  }

  var httpClient = {
    get: function (request, callback) { return send(request, callback); },
    send: function (request, callback) { return send(request, callback); }
  };

  // ---- digests and dates ----

  function digest(name) {
    var bytes = '';
    return {
      update: function (more) { bytes += String(more); return this; },
      digest: function () { return host.digest(name, bytes, false); },
      digest64: function () { return host.digest(name, bytes, true); }
    };
  }

  var crypto = {
    getMD5: function () { return digest('MD5'); },
    getSHA1: function () { return digest('SHA-1'); },
    getSHA256: function () { return digest('SHA-256'); },
    getSHA512: function () { return digest('SHA-512'); },
    getHash: function (name) { return digest(String(name)); },
    dateFormat: function (pattern, zone, time) {
      return host.date(String(pattern), zone === undefined || zone === null ? 'UTC' : String(zone),
        time === undefined || time === null ? Date.now() : Number(time));
    },
    base64Encode: function (value) { return host.base64(String(value)); },
    base64Decode: function (value) { return host.from_base64(String(value)); }
  };

  // ---- the transaction ----

  var request = new Message('request');
  var response = new Message('response');
  var context = {
    getVariable: function (name) {
      name = String(name);
      if (known[name] !== undefined) { return known[name]; }
      var value = host.get(name);
      if (value === null || typeof value !== 'object') { return value; }
      if (value.message !== undefined) { return new Message(name); }
      known[name] = JSON.parse(value.json, unpacked);
      return known[name];
    },
    setVariable: function (name, value) {
      name = String(name);
      delete known[name];
      if (value === undefined || value === null) { host.remove(name); return; }
      if (typeof value === 'object' && Object.getPrototypeOf(value) !== String.prototype) {
        if (value instanceof String || value instanceof Number || value instanceof Boolean) {
          host.set(name, value.valueOf());
          return;
        }
        known[name] = value;
        host.keep(name, JSON.stringify(value, packed));
        return;
      }
      host.set(name, typeof value === 'object' || typeof value === 'function' ? String(value) : value);
    },
    removeVariable: function (name) { delete known[String(name)]; host.remove(String(name)); },
    proxyRequest: request,
    proxyResponse: response,
    targetRequest: request,
    targetResponse: response,
    get flow() { return host.flow(); },
    get session() { return session; }
  };

  var SESSION = 'javascript.session';
  var given = [context, request, response, new Message('message'), new Message('error'),
    httpClient, Request, function (value) { host.print(String(value)); }, null, crypto];
  var PROPERTIES = 8;
  var before = new Set(Object.getOwnPropertyNames(globalThis));

  return function (script) {
    var kept = host.get(SESSION);
    session = kept !== null && typeof kept === 'object' ? JSON.parse(kept.json, unpacked) : {};
    known = {};
    pending = [];
    try {
      given[PROPERTIES] = Object.assign({}, properties);
      script.apply(undefined, given);
      // What was asked is answered before the flow goes on, so that no callback is lost.
      for (var index = 0; index < pending.length; index += 1) {
        if (pending[index].callback !== undefined) { pending[index].waitForComplete(); }
      }
    } finally {
      // Objects may have been changed after they were put into their variables.
      Object.keys(known).forEach(function (name) { host.keep(name, JSON.stringify(known[name], packed)); });
      if (kept !== null || Object.keys(session).length > 0) { host.keep(SESSION, JSON.stringify(session, packed)); }
      // Variables that the script did not declare end with it.
      var after = Object.getOwnPropertyNames(globalThis);
      if (after.length !== before.size) {
        after.forEach(function (name) {
          if (!before.has(name)) { delete globalThis[name]; }
        });
      }
    }
  };
})
