var wanted = context.getVariable('guard.role');
var roles = String(context.getVariable('verifyapikey.VK-Guard.roles') || '').split(',');
context.setVariable('guard.allowed', wanted === null || roles.indexOf(wanted) >= 0);
