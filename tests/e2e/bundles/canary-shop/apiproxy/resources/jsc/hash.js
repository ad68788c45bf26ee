// A number from 0 to 99 that stays the same for the same text.
function bucketOf(text) {
    var sha256 = crypto.getSHA256();
    sha256.update(text);
    return parseInt(sha256.digest().substr(0, 8), 16) % 100;
}
