// What several scripts share.
var MONEY = 100;
function total(lines) {
    var sum = 0;
    for each (var line in lines) {
        sum += line.price * (line.count || 1);
    }
    return Math.round(sum * MONEY) / MONEY;
}
function header(name) {
    return context.getVariable('request.header.' + name);
}
